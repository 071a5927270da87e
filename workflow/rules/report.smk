rule gather:
    input:
        manifests_of(ROUNDS),
    output:
        "results/gathered/{id}.json",
    log:
        "logs/gather/{id}.log",
    conda:
        "../../environment.yml"
    params:
        config=lambda _: CONFIG,
    shell:
        "silent-gradients gather --config {params.config:q} > {log} 2>&1"
