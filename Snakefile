# Snakemake's side: the fine graph of jobs. What is to be run is decided in src/silent_gradients/runs.py.
from snakemake.utils import min_version

min_version("9.27")


configfile: "params.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    data,
    grid,
    selection,
    train,


rule all:
    default_target: True
    input:
        # Every file that matters, not the last one alone: Snakemake does not remake a missing intermediate file
        # while everything made from it is there.
        rules.data.input,
        manifests_of_all_rounds,
        gathered,
