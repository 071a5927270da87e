import json
from functools import cache
from pathlib import Path

from silent_study import params
from silent_study.data.prepare import outdated
from silent_study.report.gathered import is_current
from silent_study.store.manifests import evaluated_otherwise, seems_done
from silent_study.jobs.pace import PACE, Pace, memory_megabytes, runtime_minutes
from silent_study.params.overlay import with_nulls
from silent_study.plan.plan import GRID_ROUNDS, ROUNDS, Plan
from silent_study.store.runs import RunStore

OWN = with_nulls(config)
PLAN = Plan(params.resolve(OWN, Path("presets")))
# Handed on by functions, since Snakemake takes braces in a text for wildcards.
CONFIG = json.dumps(OWN, sort_keys=True)
STORE = RunStore(PLAN.results / "store")
MIRROR = [f"--mirror={PLAN.params.data.mirror}"] if PLAN.params.data.mirror else []
DEVICE_PACE = Pace.read(PLAN.results / PACE, PLAN.params.sources)
TIME_LIMIT = [f"--time-limit={PLAN.params.execution.time_limit}"] if PLAN.params.execution.time_limit else []

TENSORBOARD = [f"--tensorboard={PLAN.params.execution.tensorboard}"] if PLAN.params.execution.tensorboard else []


# Jobs take data and manifests as `ancient`: the data's digest is in every run's id, and a manifest's path carries the id of
# what it promises, so that a newer file time means nothing. Targets, which have no output, list all of them and not as
# `ancient`: when Snakemake 9.27 lays out its graph anew after a checkpoint, a job that is about to end, whose output is
# there, leads to nothing that takes it as `ancient`; all jobs to come would be lost, without an error.


wildcard_constraints:
    dataset="[a-z0-9_]+",
    round="baselines|guided|seeds",
    group="[a-z0-9_+/-]+",
    id="[0-9a-f]+",


@cache
def prepared(dataset):
    """The files of a prepared data set."""
    # Snakemake sees that they are there; without their manifests, it has those of other data made again.
    for manifest in outdated(Path("data/prepared") / dataset, PLAN.params.sources[dataset]):
        manifest.unlink(missing_ok=True)
    names = ("manifest.json", "train.npy", "test.npy", "noise.json", "noise.npy")
    return [f"data/prepared/{dataset}/{name}" for name in names]


def own_set(dataset):
    """What the steps of an own data set are told of it."""
    return [f"--settings={PLAN.params.own_set(dataset)}"] if dataset in PLAN.params.data.sets else []


def rounds_before(round_, group):
    rounds = PLAN.rounds(group)
    return rounds[: rounds.index(round_)]


@cache
def selections(upto, group):
    """The selections that a group's round depends on; makes Snakemake wait for those that are still to be made."""
    found = {}
    for round_ in rounds_before(upto, group):
        # Made anew with its manifests: of a checkpoint that is there and to be made again, Snakemake may forget what
        # waits for it, where the last of its inputs appears while it lays out its graph anew.
        if not all(Path(path).exists() for path in manifests(round_, group)):
            PLAN.selection_path(round_, group, found).unlink(missing_ok=True)
        checkpoints.select.get(round=round_, group=group, id=PLAN.selection_id(round_, group, found))
        found |= PLAN.selected(round_, group, found)
    return found


def selections_before(wildcards):
    """The files that a pack's members were selected by: Snakemake asks for them, since `pack_of` reads them."""
    found = selections(wildcards.round, wildcards.group)
    rounds = rounds_before(wildcards.round, wildcards.group)
    return [ancient(str(PLAN.selection_path(round_, wildcards.group, found))) for round_ in rounds]


@cache
def packs(round_, group):
    """The packs of a group's round by id, laid out once and not for every job."""
    return {pack.id: pack for pack in PLAN.packs(round_, selections(round_, group), group)}


def manifests(round_, group):
    for pack in packs(round_, group).values():
        # The evaluations that the manifest names are gone; without it, Snakemake has them made again.
        if evaluated_otherwise(STORE, pack):
            PLAN.manifest(pack).unlink(missing_ok=True)
    return [str(PLAN.manifest(pack)) for pack in packs(round_, group).values()]


def manifests_of(rounds, flag=list):
    """The manifests as an input function each round and group: a selection to come holds up what it decides alone."""
    return [
        lambda wildcards, round_=round_, group=group: flag(manifests(round_, group))
        for group in PLAN.groups()
        for round_ in PLAN.rounds(group)
        if round_ in rounds
    ]


def last_selection(group):
    round_ = rounds_before("seeds", group)[-1]
    return str(PLAN.selection_path(round_, group, selections(round_, group)))


def last_selections():
    return [lambda wildcards, group=group: last_selection(group) for group in PLAN.groups()]


def gathered(wildcards):
    found = {cell: chosen for group in PLAN.groups() for cell, chosen in selections("seeds", group).items()}
    marker = PLAN.gathered_marker(found)
    # Snakemake sees the marker alone; without it, it gathers again.
    if not is_current(marker, PLAN.results):
        marker.unlink(missing_ok=True)
    return str(marker)


def pack_of(wildcards):
    """The pack that a manifest's path names."""
    found = packs(wildcards.round, wildcards.group).get(wildcards.id)
    if found is None:
        raise KeyError(f"no pack {wildcards.id} in round {wildcards.round} of {wildcards.group}")
    return found


def gpus_of(wildcards):
    """GPUs that a pack needs: none where the store has all that it asks for, so that it waits behind no training."""
    return 0 if seems_done(STORE, pack_of(wildcards)) else 1


def runtime_of(wildcards):
    """Minutes that a scheduler should grant a pack; the device's pace, if it was measured, says."""
    return runtime_minutes(pack_of(wildcards), DEVICE_PACE, PLAN.params.execution.time_limit)


def memory_of(wildcards):
    """Megabytes of memory that a scheduler should grant a pack."""
    return memory_megabytes(pack_of(wildcards), DEVICE_PACE)
