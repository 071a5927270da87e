# Snakemake's side: the fine graph of jobs. What is to be run is decided in src/silent_study/plan/plan.py.
from pathlib import Path

from silent_study.params.overlay import read_yaml
from snakemake.utils import min_version

min_version("9.27")

# Snakemake would not say in which line a mistake is, nor in which file.
read_yaml(Path("params.yaml"))


configfile: "params.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    data,
    # Where jobs are sent to other machines, these may have no way out to the network.
    download,
    grid,
    selection,
    train,


rule all:
    default_target: True
    input:
        # Every file that matters, not the last one alone: Snakemake does not remake a missing intermediate file
        # while everything made from it is there.
        rules.train.input,
        gathered,
