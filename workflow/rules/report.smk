rule gather:
    input:
        [lambda w, made=made: ancient(made(w)) for made in study.manifests_of(ROUNDS)],
        lambda _: study.gathered_renewals(),
    output:
        "results/gathered/{id}.json",
        # Copies for Snakemake's own report, which shows nothing but declared outputs.
        report(
            "results/snakemake-report/{id}/report.html",
            caption="../report/page.rst",
            category="Report",
            labels={"what": "the whole report"},
        ),
        report(
            directory("results/snakemake-report/{id}/tables"),
            patterns=["{name}.html"],
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{name}"},
        ),
        report(
            directory("results/snakemake-report/{id}/figures"),
            patterns=["{dataset}/{experiment}/{figure}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"data set": "{dataset}", "experiment": "{experiment}", "figure": "{figure}"},
        ),
    log:
        "logs/gather/{id}.log",
    conda:
        "../envs/jobs.yaml"
    resources:
        # Factor analysis of a large data set with a thousand latent variables takes most of an hour.
        runtime=480,
        mem_mb=16000,
    params:
        config=lambda _: study.settings,
    shell:
        "silent-gradients gather --settings {params.config:q} > {log} 2>&1"
