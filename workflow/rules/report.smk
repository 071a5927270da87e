rule gather:
    input:
        manifests_of(ROUNDS),
    output:
        "results/gathered/{id}.json",
        # A copy for Snakemake's own report, which shows nothing but declared outputs. No directory(): with one among the
        # outputs, Snakemake 9.27 now and then loses jobs when it lays out its graph anew after a checkpoint.
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
