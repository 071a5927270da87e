rule train_pack:
    input:
        data=lambda w: ancient(study.prepared(w.group.split("/")[0])),
        selections=lambda w: ancient(study.selections_before(w)),
        renewals=study.pack_renewals,
    output:
        "results/packs/{round}/{group}/{id}.json",
    log:
        "logs/packs/{round}/{group}/{id}.log",
    priority: study.priority
    retries: study.retries
    conda:
        "../envs/jobs.yaml"
    resources:
        gpu=study.gpus,
        runtime=study.runtime,
        mem_mb=study.memory,
    params:
        pack=study.pack_json,
        checkpoint_seconds=study.execution.checkpoint_seconds,
        stack=study.execution.stack,
        steps=study.execution.steps,
        options=lambda _: study.pack_options(),
    shell:
        # exec: a signal to the process group must not end a shell that waits for the training to save a checkpoint.
        "exec silent-gradients train --pack {params.pack:q} --data $(dirname {input.data[0]:q}) --manifest {output:q}"
        " --checkpoint-seconds {params.checkpoint_seconds} --stack {params.stack} --steps {params.steps:q}"
        " {params.options:q} > {log:q} 2>&1"


checkpoint select:
    input:
        lambda w: ancient(study.selected_from(w)),
    output:
        "results/selections/{group}/{round}-{id}.json",
    log:
        "logs/select/{group}/{round}-{id}.log",
    priority: FIRST
    conda:
        "../envs/jobs.yaml"
    params:
        # A function, since Snakemake takes braces in a text for wildcards.
        config=lambda _: study.settings,
    shell:
        "silent-gradients select {wildcards.round:q} {wildcards.group:q} --settings {params.config:q} > {log} 2>&1"


rule grid:
    input:
        rules.data.input,
        study.manifests_of(GRID_ROUNDS),


rule selection:
    input:
        rules.grid.input,
        study.last_selections(),


rule train:
    input:
        rules.data.input,
        study.manifests_of(ROUNDS),


rule cell:
    """Train one cell: the grids of its data set and experiment, which select, and its own runs with every seed."""
    input:
        rules.data.input,
        study.cell,
    output:
        touch("results/cells/{dataset}/{experiment}/{method}"),
