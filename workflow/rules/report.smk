rule gather:
    input:
        manifests_of(ROUNDS, ancient),
    output:
        "results/gathered/{id}.json",
        # A copy for Snakemake's own report, which shows nothing but declared outputs.
        report(
            "results/snakemake-report/{id}/report.html",
            caption="../report/page.rst",
            category="Report",
            labels={"what": "the page of the study"},
        ),
    log:
        "logs/gather/{id}.log",
    conda:
        "../../environment.yml"
    params:
        config=lambda _: CONFIG,
    shell:
        "silent-gradients gather --config {params.config:q} > {log} 2>&1"
