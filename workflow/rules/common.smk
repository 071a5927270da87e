import json
from functools import cache
from pathlib import Path

from silent_gradients import params
from silent_gradients.gathered import is_current
from silent_gradients.pace import PACE, Pace, memory_megabytes, runtime_minutes
from silent_gradients.runs import GRID_ROUNDS, ROUNDS, Plan
from silent_gradients.selection import evaluated_otherwise
from silent_gradients.store import RunStore

PLAN = Plan(params.resolve(config, Path("presets")))
STORE = RunStore(PLAN.results / "store")
MIRROR = [f"--mirror={PLAN.params.data.mirror}"] if PLAN.params.data.mirror else []
DEVICE_PACE = Pace.read(PLAN.results / PACE)
TIME_LIMIT = [f"--time-limit={PLAN.params.execution.time_limit}"] if PLAN.params.execution.time_limit else []


wildcard_constraints:
    dataset="[a-z0-9_]+",
    round="baselines|guided|seeds",
    group="[a-z0-9_+/-]+",
    id="[0-9a-f]+",


def prepared(dataset):
    """The files of a prepared data set."""
    # ancient: the data's digest is in every run's id, so that a newer file time means nothing.
    names = ("manifest.json", "train.npy", "test.npy", "noise.json", "noise.npy")
    return [ancient(f"data/prepared/{dataset}/{name}") for name in names]


def selections(upto):
    """The selections that a round depends on; makes Snakemake wait for those that are still to be made."""
    found = {}
    for round_ in GRID_ROUNDS[: ROUNDS.index(upto)]:
        checkpoints.select.get(round=round_, id=PLAN.selection_id(round_, found))
        found = PLAN.selections(ROUNDS[ROUNDS.index(round_) + 1])
    return found


def selections_before(wildcards):
    """The files that a pack's members were selected by: Snakemake asks for them, since `pack_of` reads them."""
    found = selections(wildcards.round)
    return [ancient(str(PLAN.selection_path(round_, found))) for round_ in found]


@cache
def packs(round_):
    """The packs of a round by id, laid out once and not for every job; before its selections are made, an error."""
    return {pack.id: pack for pack in PLAN.packs(round_, selections(round_))}


def manifests(round_):
    # ancient: a manifest's path carries the id of what it promises, so that its file time means nothing.
    for pack in packs(round_).values():
        # The evaluations that the manifest names are gone; without it, Snakemake has them made again.
        if evaluated_otherwise(STORE, pack):
            PLAN.manifest(pack).unlink(missing_ok=True)
    return [ancient(str(PLAN.manifest(pack))) for pack in packs(round_).values()]


def manifests_of_grids(wildcards):
    return [manifest for round_ in GRID_ROUNDS for manifest in manifests(round_)]


def manifests_of_all_rounds(wildcards):
    return [manifest for round_ in ROUNDS for manifest in manifests(round_)]


def last_selection(wildcards):
    return str(PLAN.selection_path(GRID_ROUNDS[-1], selections(GRID_ROUNDS[-1])))


def gathered(wildcards):
    marker = PLAN.gathered_marker(selections("seeds"))
    # Snakemake sees the marker alone; without it, it gathers again.
    if not is_current(marker, PLAN.results):
        marker.unlink(missing_ok=True)
    return str(marker)


def pack_of(wildcards):
    """The pack that a manifest's path names."""
    found = packs(wildcards.round).get(wildcards.id)
    if found is None:
        raise KeyError(f"no pack {wildcards.id} in round {wildcards.round}")
    return found


def runtime_of(wildcards):
    """Minutes that a scheduler should grant a pack; the device's pace, if it was measured, says."""
    return runtime_minutes(pack_of(wildcards), DEVICE_PACE, PLAN.params.execution.time_limit)


def memory_of(wildcards):
    """Megabytes of memory that a scheduler should grant a pack."""
    return memory_megabytes(pack_of(wildcards), DEVICE_PACE)
