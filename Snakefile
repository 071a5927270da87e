# The graph of jobs. src/silent_study/plan/plan.py decides what is to be run, src/silent_study/workflow.py what each job
# needs.
import shutil
from pathlib import Path

from silent_study.params.overlay import read_yaml
from snakemake.utils import min_version

min_version("9.27")

# Refuses mistakes in the YAML with file and line. Snakemake has read the files of --configfile, and takes 010 for 8.
for file in ["params.yaml", *workflow.configfiles]:
    read_yaml(Path(file))


configfile: "params.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    cell,
    data,
    # On a cluster, the machines that jobs are sent to may have no network.
    download,
    grid,
    renew,
    selection,
    train,


rule all:
    default_target: True
    input:
        # Every file that matters, not the last one alone: Snakemake does not remake a missing intermediate file
        # while everything made from it is there.
        rules.train.input,
        lambda _: study.gathered(),


onstart:
    if workflow.is_main_process:
        prepare_start(study)
        if workflow.local_exec:
            stop_jobs_on_signals()
        else:  # Snakemake, which has set its own answer to SIGTERM meanwhile, cancels jobs of a cluster as it exits
            exit_on_signals()


onsuccess:
    shutil.rmtree(study.renewals, ignore_errors=True)
