# Copies for Snakemake's own report, which shows nothing but declared outputs.
SHOWN = "results/snakemake-report/{id}"


rule gather:
    input:
        manifests_of(ROUNDS),
    output:
        "results/gathered/{id}.json",
        report(
            f"{SHOWN}/report.html",
            caption="../report/page.rst",
            category="Report",
            labels={"what": "the page of the study"},
        ),
        report(
            directory(f"{SHOWN}/tables"),
            patterns=["{table}.csv"],
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        report(
            directory(f"{SHOWN}/figures"),
            patterns=["{figure}.svg", "{figure}.png"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/gather/{id}.log",
    conda:
        "../../environment.yml"
    params:
        config=lambda _: CONFIG,
    shell:
        "silent-gradients gather --config {params.config:q} > {log} 2>&1"
