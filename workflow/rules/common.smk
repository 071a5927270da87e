import gc

from silent_study.jobs.stopping import exit_on_signals, stop_jobs_on_signals
from silent_study.params.overlay import read_yaml
from silent_study.plan.plan import GRID_ROUNDS, ROUNDS
from silent_study.workflow import Workflow, prepare_start

exit_on_signals()

# Every decision of the rules is a method of this object, and none of them writes.
study = Workflow(
    config,
    lambda **wildcards: checkpoints.select.get(**wildcards),
    closer=[*map(read_yaml, workflow.overwrite_configfiles), workflow.config_settings.config],
)
# The plan lasts as long as Snakemake: no collection of garbage needs to visit its thousands of runs.
gc.freeze()

# Minutes: more than any training takes. Trainings wait for data and selections.
FIRST = 1_000_000


wildcard_constraints:
    dataset="[a-z0-9_]+",
    experiment="[a-z-]+",
    method="[a-z0-9+-]+",
    round="baselines|guided|seeds",
    group="[a-z0-9_+/-]+",
    id="[0-9a-f-]+",
    outdated="[^/]+",


rule renew:
    """Have the rule of an out-of-date file run: it takes the file of this rule as input."""
    output:
        touch("results/.renewals/{outdated}"),


# Rules that make files take data and manifests as `ancient`: the digest of the data is in the id of every run and the id
# of a pack in the path of its manifest, so that a later modification time means nothing. Target rules list their inputs
# without `ancient`: with it, Snakemake 9.27 silently drops the remaining jobs when it lays out the graph anew after a
# checkpoint.
