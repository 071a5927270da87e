rule download:
    output:
        "data/raw/{dataset}.json",
    log:
        "logs/download/{dataset}.log",
    conda:
        "../../environment.yml"
    params:
        mirror=lambda _: MIRROR,
        own=lambda w: own_set(w.dataset),
    shell:
        "silent-gradients download {wildcards.dataset:q} {params.mirror:q} {params.own:q}"
        " --record {output:q} > {log:q} 2>&1"


rule prepare:
    input:
        # ancient: what the raw files are is in the digests that they were verified against.
        ancient("data/raw/{dataset}.json"),
    output:
        "data/prepared/{dataset}/manifest.json",
        "data/prepared/{dataset}/train.npy",
        "data/prepared/{dataset}/test.npy",
    log:
        "logs/prepare/{dataset}.log",
    conda:
        "../../environment.yml"
    params:
        mirror=lambda _: MIRROR,
        own=lambda w: own_set(w.dataset),
    shell:
        "silent-gradients prepare {wildcards.dataset:q} {params.mirror:q} {params.own:q} > {log:q} 2>&1"


rule dequantize:
    output:
        "data/prepared/{dataset}/noise.json",
        "data/prepared/{dataset}/noise.npy",
    log:
        "logs/dequantize/{dataset}.log",
    conda:
        "../../environment.yml"
    params:
        own=lambda w: own_set(w.dataset),
    shell:
        "silent-gradients dequantize {wildcards.dataset:q} {params.own:q} > {log:q} 2>&1"


rule data:
    input:
        [file for dataset in PLAN.datasets() for file in prepared(dataset)],
