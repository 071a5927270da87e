"""Selection against brute force, and its errors where runs are not those of the manifests."""

import itertools
import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import write_study

from silent_study import params
from silent_study.plan.plan import Plan, SelectionMissingError
from silent_study.plan.selection import check_selections, select
from silent_study.store.documents import Selection
from silent_study.store.manifests import manifest
from silent_study.store.runs import RunStore, StoreError, write_json


def make_plan(folder: Path, experiment: str, grid: dict[str, Any], shared: list[str], methods: list[str]) -> Plan:
    execution = {"workers": 2, "runs_per_pack": 7}
    write_study(folder, experiment, {"execution": execution}, methods=methods, grid=grid, shared_axes=shared, epochs=3)
    return Plan(params.load(folder / "params.yaml"), folder / "results")


def finished(bpd: float) -> dict[str, Any]:
    return {"status": "finished", "selection": {"bpd": bpd}}


def write_results(plan: Plan, round_: Any, selections: Any, bpd_of: Any) -> RunStore:
    """Runs and manifests as training writes them; ``bpd_of(run)`` is None for a diverged one."""
    store = RunStore(plan.results / "store")
    for pack in plan.packs(round_, selections):
        members = []
        for settings in pack.members:
            bpd = bpd_of(settings)
            working = store.working_folder(settings.name)
            working.mkdir(parents=True)
            write_json(working / "settings.json", settings.to_json())
            (working / "curve.jsonl").write_text("")
            ended = {"status": "diverged", "selection": None} if bpd is None else finished(bpd)
            write_json(working / "result.json", ended)
            members.append(store.seal(settings))
        write_json(plan.manifest(pack), manifest(pack, members))
    return store


FIXED_GRID = {"learning_rate": [0.001, 0.002, 0.003], "variance": [0.01, 0.1, 1.0]}
LEARNABLE_METHODS = [
    "silent-gaussian",
    "reparameterization",
    "reparameterization+silent",
    "silent-bernoulli",
    "gumbel-softmax",
    "gumbel-softmax+silent",
    "reinforce",
    "reinforce+silent",
]
FIXED_METHODS = ["silent-gaussian", "reparameterization", "reinforce"]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


def chosen_of(document: Selection, *axes: str) -> dict[str, Any]:
    return {
        cell.rpartition("/")[2]: tuple(chosen["point"][axis] for axis in axes)
        for cell, chosen in document["cells"].items()
    }


@pytest.mark.parametrize("seed", range(4))
def test_each_cell_gets_its_least_bound(tmp_path, seed):
    plan = make_plan(tmp_path, "fixed", FIXED_GRID, [], FIXED_METHODS)
    rng = np.random.default_rng(seed)
    points = list(itertools.product(FIXED_METHODS, FIXED_GRID["learning_rate"], FIXED_GRID["variance"]))
    bpds = dict(zip(points, rng.permutation(len(points)) / 7, strict=True))
    store = write_results(plan, "baselines", {}, lambda run: float(bpds[run.method, run.learning_rate, run.variance]))
    document = select(plan, store, "baselines", "digits/fixed", {})
    for method in FIXED_METHODS:
        own = {point[1:]: bpd for point, bpd in bpds.items() if point[0] == method}
        least = min(own, key=lambda point: own[point])
        chosen = document["cells"][f"digits/fixed/{method}"]
        assert (chosen["point"]["learning_rate"], chosen["point"]["variance"]) == least
        assert chosen["bpd"] == own[least]
        assert (chosen["status"], chosen["configurations"], chosen["diverged"]) == ("selected", 9, 0)
        settings = json.loads((store.folder(chosen["run"]) / "settings.json").read_text())
        assert (settings["method"], settings["learning_rate"], settings["variance"]) == (method, *least)
    assert document["round"] == "baselines"
    assert document["id"] == plan.selection_id("baselines", "digits/fixed", {})
    assert set(document["cells"]) == {cell.name for cell in plan.cells_of("baselines")}


def test_a_selection_edited_by_hand_is_found(tmp_path):
    plan = make_plan(tmp_path, "fixed", FIXED_GRID, [], FIXED_METHODS)
    store = write_results(plan, "baselines", {}, lambda run: run.learning_rate)
    path = plan.selection_path("baselines", "digits/fixed", {})
    document = select(plan, store, "baselines", "digits/fixed", {})
    runs = {run.name: store.verified(run.name, run.id) for pack in plan.packs("baselines", {}) for run in pack.members}
    write_json(path, document)
    check_selections(plan, runs)
    chosen = document["cells"]["digits/fixed/reinforce"]
    chosen["point"] = chosen["point"] | {"learning_rate": max(FIXED_GRID["learning_rate"])}
    write_json(path, document)
    with pytest.raises(StoreError, match=r"digits/fixed/reinforce: .*not .*delete it"):
        check_selections(plan, runs)
    # Without a cell it is damaged: the workflow makes another in its place.
    del document["cells"]["digits/fixed/reinforce"]
    write_json(path, document)
    with pytest.raises(SelectionMissingError, match=r"-1\.json: not made yet"):
        check_selections(plan, runs)


@pytest.mark.parametrize("seed", range(8))
def test_a_shared_axis_is_settled_over_all_methods(tmp_path, seed):
    plan = make_plan(tmp_path, "fixed", FIXED_GRID, ["variance"], FIXED_METHODS)
    rng = np.random.default_rng(seed)
    bpds: dict[Any, float] = {}
    for point in itertools.product(FIXED_METHODS, FIXED_GRID["learning_rate"], FIXED_GRID["variance"]):
        bpds[point] = math.inf if rng.random() < (0.1 * seed) else float(rng.integers(20)) / 4
    store = write_results(
        plan,
        "baselines",
        {},
        lambda run: (lambda bpd: bpd if math.isfinite(bpd) else None)(
            bpds[run.method, run.learning_rate, run.variance]
        ),
    )
    # Brute force over every assignment of a rate to each method, for each variance.
    scores = {}
    for variance in FIXED_GRID["variance"]:
        assignments = itertools.product(FIXED_GRID["learning_rate"], repeat=len(FIXED_METHODS))
        scores[variance] = min(
            (sum(math.isinf(value) for value in values), math.fsum(value for value in values if math.isfinite(value)))
            for rates in assignments
            for values in [[bpds[method, rate, variance] for method, rate in zip(FIXED_METHODS, rates, strict=True)]]
        )
    settled = min(scores, key=lambda variance: scores[variance])  # the first of equals
    document = select(plan, store, "baselines", "digits/fixed", {})
    for method in FIXED_METHODS:
        own = [bpds[method, rate, settled] for rate in FIXED_GRID["learning_rate"]]
        chosen = document["cells"][f"digits/fixed/{method}"]
        assert chosen["point"]["variance"] == settled
        assert chosen["point"]["learning_rate"] == FIXED_GRID["learning_rate"][own.index(min(own))]
        assert chosen["bpd"] == (min(own) if math.isfinite(min(own)) else None)
        assert chosen["status"] == ("selected" if math.isfinite(min(own)) else "diverged")
        every = [bpd for point, bpd in bpds.items() if point[0] == method]
        assert (chosen["configurations"], chosen["diverged"]) == (9, sum(map(math.isinf, every)))


def test_ties_go_to_the_point_that_is_listed_first(tmp_path):
    plan = make_plan(tmp_path, "fixed", FIXED_GRID, [], FIXED_METHODS)
    bpds = {0.001: 3.0, 0.002: 2.0, 0.003: 2.0}
    store = write_results(plan, "baselines", {}, lambda run: bpds[run.learning_rate])
    chosen = chosen_of(select(plan, store, "baselines", "digits/fixed", {}), "learning_rate", "variance")
    assert set(chosen.values()) == {(0.002, 0.01)}


def test_diverged_points_are_passed_over_and_counted(tmp_path):
    plan = make_plan(tmp_path, "fixed", FIXED_GRID, ["variance"], FIXED_METHODS)

    def bpd_of(run):
        if run.method == "reinforce":
            return None
        if run.method == "reparameterization":
            return None if run.learning_rate < 0.003 else 4.0 + run.variance
        return 5.0 - run.variance  # by itself it would take the largest variance

    store = write_results(plan, "baselines", {}, bpd_of)
    cells = select(plan, store, "baselines", "digits/fixed", {})["cells"]
    diverged = cells["digits/fixed/reinforce"]
    assert (diverged["status"], diverged["bpd"], diverged["diverged"]) == ("diverged", None, 9)
    assert diverged["point"] == {"learning_rate": 0.001, "mean_rate": None, "variance": 0.01}
    assert cells["digits/fixed/reparameterization"]["point"]["learning_rate"] == 0.003
    assert cells["digits/fixed/reparameterization"]["diverged"] == 6


def test_a_method_that_diverges_everywhere_leaves_the_others_their_say(tmp_path):
    plan = make_plan(tmp_path, "fixed", FIXED_GRID, ["variance"], FIXED_METHODS)
    store = write_results(plan, "baselines", {}, lambda run: None if run.method == "reinforce" else 5.0 - run.variance)
    chosen = chosen_of(select(plan, store, "baselines", "digits/fixed", {}), "variance")
    assert set(chosen.values()) == {(1.0,)}


LEARNABLE_GRID = {
    "learning_rate": [0.001, 0.002],
    "mean_rate": [None, 0.002],
    "annealing_rate": [0.1, 0.2],
    "cutoff_epoch": [None, 2],
}


def test_a_shared_axis_settles_the_methods_that_have_it(tmp_path):
    """``mean_rate`` concerns the guides alone; in each round its own methods settle it."""
    methods = LEARNABLE_METHODS
    plan = make_plan(tmp_path, "learnable", LEARNABLE_GRID, ["mean_rate"], methods)

    def bpd_of(run):
        if run.silent is None:
            return 3.0 + run.learning_rate
        return 3.0 + 100 * run.silent.mean_rate + (run.learning_rate == 0.001)

    store = write_results(plan, "baselines", {}, bpd_of)
    document = select(plan, store, "baselines", "digits/learnable", {})
    cells = document["cells"]
    # The two silent methods: their best, rate 0.002 with mean rate 0.002, is the point null and the point 0.002.
    for method in ("silent-gaussian", "silent-bernoulli"):
        chosen = cells[f"digits/learnable/{method}"]
        assert chosen["point"]["learning_rate"] == 0.002
        assert chosen["point"]["mean_rate"] is None
        assert chosen["configurations"] == 3 * 2
    for method in ("reparameterization", "gumbel-softmax", "reinforce"):
        assert cells[f"digits/learnable/{method}"]["point"] == {"learning_rate": 0.001}
    selections: Any = cells
    store = write_results(plan, "guided", selections, bpd_of)
    guided = select(plan, store, "guided", "digits/learnable", selections)["cells"]
    assert set(guided) == {f"digits/learnable/{name}" for name in methods if "+" in name}
    for chosen in guided.values():
        assert (chosen["point"]["learning_rate"], chosen["point"]["mean_rate"]) == (0.001, None)
        assert (chosen["point"]["annealing_rate"], chosen["point"]["cutoff_epoch"]) == (0.1, None)
        assert chosen["configurations"] == 2 * 2 * 2


@pytest.fixture
def small(tmp_path):
    plan = make_plan(tmp_path, "fixed", FIXED_GRID, [], FIXED_METHODS)
    store = write_results(plan, "baselines", {}, lambda run: 3.0 + run.learning_rate)
    select(plan, store, "baselines", "digits/fixed", {})
    return plan, store


def refused(small) -> tuple[str, list[str]]:
    """The message of the refusal, and the manifests that its command would remake."""
    plan, store = small
    with pytest.raises(StoreError) as caught:
        select(plan, store, "baselines", "digits/fixed", {})
    message = str(caught.value)
    command = message.splitlines()[-1].partition("with: ")[2]
    assert "--force" in command
    return message, shlex.split(command.partition(" -- ")[2])


@pytest.mark.parametrize("what", ["an altered run", "a missing run", "a missing manifest"])
def test_what_is_wrong_is_named_with_the_command_that_remakes_it(small, what):
    plan, store = small
    pack = plan.packs("baselines", {})[1]
    name, manifest_path = pack.members[2].name, plan.manifest(pack)
    match what:
        case "an altered run":
            named = path = store.folder(name) / "result.json"
            path.write_text(path.read_text().replace("3.0", "1.0"))
        case "a missing run":
            named = name
            store.folder(name).rename(store.root / "elsewhere")
        case "a missing manifest":
            named = f"{manifest_path}: cannot be read"
            manifest_path.unlink()
    message, remade = refused(small)
    assert str(named) in message
    assert remade == [str(manifest_path)]


@pytest.mark.parametrize("how", ["other runs", "other order", "fewer runs", "other pack"])
def test_a_manifest_of_other_runs_is_named(small, how):
    plan, _ = small
    first, second = plan.packs("baselines", {})[:2]
    path = plan.manifest(first)
    document = json.loads(path.read_text())
    match how:
        case "other runs":
            document["members"] = json.loads(plan.manifest(second).read_text())["members"]
        case "other order":
            document["members"].reverse()
        case "fewer runs":
            document["members"].pop()
        case "other pack":
            document["pack"] = second.id
    write_json(path, document)
    message, remade = refused(small)
    assert f"{path}: it lists other runs than the plan asks for" in message
    assert remade == [str(path)]


def test_a_run_that_was_trained_again_with_another_result_is_named(small):
    plan, store = small
    settings = plan.packs("baselines", {})[0].members[0]
    old = store.verified(settings.name, settings.id)

    def again(bpd, replaces):
        working = store.working_folder(settings.name)
        working.mkdir()
        for file in ("settings.json", "curve.jsonl"):
            (working / file).write_bytes((store.folder(settings.name) / file).read_bytes())
        write_json(working / "result.json", finished(bpd))
        store.seal(settings, replaces)

    again(2.0, None)
    message, _ = refused(small)
    assert f"{settings.name}: its result is not the one that its pack's manifest names" in message
    again(2.5, old)  # it says whose place it took
    chosen = select(plan, store, "baselines", "digits/fixed", {})["cells"][settings.cell]
    assert (chosen["bpd"], chosen["run"]) == (2.5, settings.name)


def test_every_wrong_pack_is_remade(small):
    plan, store = small
    packs = plan.packs("baselines", {})
    for pack in packs:
        (store.folder(pack.members[-1].name) / "curve.jsonl").write_text("{}\n")
    message, remade = refused(small)
    assert all(pack.members[-1].name in message for pack in packs)
    assert sorted(remade) == sorted(str(plan.manifest(pack)) for pack in packs)
