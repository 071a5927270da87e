rule train_pack:
    input:
        data=lambda w: ancient(prepared(w.group.split("/")[0])),
        selections=selections_before,
    output:
        "results/packs/{round}/{group}/{id}.json",
    log:
        "logs/packs/{round}/{group}/{id}.log",
    conda:
        "../../environment.yml"
    resources:
        gpu=gpus_of,
        runtime=runtime_of,
        mem_mb=memory_of,
    params:
        pack=lambda w: json.dumps(pack_of(w).to_json(), sort_keys=True),
        checkpoint_seconds=PLAN.params.execution.checkpoint_seconds,
        stack=PLAN.params.execution.stack,
        steps=PLAN.params.execution.steps,
        time_limit=TIME_LIMIT,
        tensorboard=TENSORBOARD,
    shell:
        "silent-gradients train --pack {params.pack:q} --data $(dirname {input.data[0]:q}) --manifest {output:q}"
        " --checkpoint-seconds {params.checkpoint_seconds} --stack {params.stack} --steps {params.steps:q}"
        " {params.time_limit:q} {params.tensorboard:q} > {log:q} 2>&1"


checkpoint select:
    input:
        lambda w: ancient(manifests(w.round, w.group)),
    output:
        "results/selections/{group}/{round}-{id}.json",
    log:
        "logs/select/{group}/{round}-{id}.log",
    conda:
        "../../environment.yml"
    params:
        config=lambda _: CONFIG,
    shell:
        "silent-gradients select {wildcards.round:q} {wildcards.group:q} --settings {params.config:q} > {log} 2>&1"


rule grid:
    input:
        rules.data.input,
        manifests_of(GRID_ROUNDS),


rule selection:
    input:
        rules.grid.input,
        last_selections(),


rule train:
    input:
        rules.data.input,
        manifests_of(ROUNDS),
