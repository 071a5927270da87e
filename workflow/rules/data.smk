rule prepare:
    output:
        "data/prepared/{dataset}/manifest.json",
        "data/prepared/{dataset}/train.npy",
        "data/prepared/{dataset}/test.npy",
    log:
        "logs/prepare/{dataset}.log",
    conda:
        "../../environment.yml"
    params:
        mirror=[f"--mirror={PLAN.params.data.mirror}"] if PLAN.params.data.mirror else [],
    shell:
        "silent-gradients prepare {wildcards.dataset:q} {params.mirror:q} > {log} 2>&1"


rule data:
    input:
        expand("data/prepared/{dataset}/manifest.json", dataset=PLAN.datasets()),
