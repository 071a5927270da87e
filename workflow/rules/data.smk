rule download:
    output:
        "data/raw/{dataset}.json",
    log:
        "logs/download/{dataset}.log",
    priority: FIRST
    conda:
        "../envs/jobs.yaml"
    params:
        options=lambda w: study.data_options(w.dataset),
    shell:
        "silent-gradients download {wildcards.dataset:q} {params.options:q} --record {output:q} > {log:q} 2>&1"


rule prepare:
    input:
        # ancient: the raw files were verified against digests.
        ancient("data/raw/{dataset}.json"),
        lambda w: study.data_renewals(w.dataset, "manifest.json"),
    output:
        "data/prepared/{dataset}/train.npy",
        "data/prepared/{dataset}/test.npy",
        # Last: Snakemake touches outputs in this order, and arrays that are newer than their manifest are read again.
        "data/prepared/{dataset}/manifest.json",
    log:
        "logs/prepare/{dataset}.log",
    priority: FIRST
    conda:
        "../envs/jobs.yaml"
    params:
        options=lambda w: study.data_options(w.dataset),
    shell:
        "silent-gradients prepare {wildcards.dataset:q} {params.options:q} > {log:q} 2>&1"


rule dequantize:
    input:
        lambda w: study.data_renewals(w.dataset, "noise.json"),
    output:
        "data/prepared/{dataset}/noise.npy",
        "data/prepared/{dataset}/noise.json",
    log:
        "logs/dequantize/{dataset}.log",
    priority: FIRST
    conda:
        "../envs/jobs.yaml"
    params:
        options=lambda w: study.data_options(w.dataset, mirror=False),
    shell:
        "silent-gradients dequantize {wildcards.dataset:q} {params.options:q} > {log:q} 2>&1"


rule data:
    input:
        study.all_prepared(),
