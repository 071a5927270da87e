"""The one list of what is to be run, counted by hand, and the identities that follow from it."""

import copy
import dataclasses
import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tiny import SMALL

from silent_study import params
from silent_study.methods import METHODS
from silent_study.plan.plan import GRID_ROUNDS, ROUNDS, Plan, SelectionMissingError
from silent_study.progress.overview import overview
from silent_study.store.code import training_code
from silent_study.store.runs import CODE, RECORD, RunStore, as_json, write_json

ROOT = Path(__file__).parents[2]
PRESETS = ROOT / "presets"
RATES = {"fixed": (0.001, 0.004), "learnable": (0.001, 0.003)}
BASELINES = ["reparameterization", "gumbel-softmax", "reinforce"]
SILENT = ["silent-gaussian", "silent-bernoulli"]


@pytest.fixture(scope="module")
def make(study):
    """A plan of the study with ``own`` settings over it."""

    def make(own: dict[str, Any] | None = None, results: Path = Path("results")) -> Plan:
        return Plan(params.resolve({"preset": "study"} | (own or {}), study), results)

    return make


def section(experiment: str, **changes: Any) -> dict[str, Any]:
    return {"experiments": {experiment: {"digits": changes}}}


def selection_of_first_points(plan: Plan) -> dict[Any, Any]:
    """Selections in which every cell's first grid point was the best."""
    found: dict[Any, Any] = {}
    for round_ in GRID_ROUNDS:
        for cell in plan.cells_of(round_):
            point, run = plan.grid_runs(cell, found)[0]
            found[cell.name] = {"status": "selected", "point": point, "run": run.name, "bpd": 3.0}
    return found


def runs_of(plan: Plan, round_: Any, selections: Any = None) -> list[Any]:
    return [run for pack in plan.packs(round_, selections or {}) for run in pack.members]


@pytest.fixture(scope="module")
def plan(make):
    return make()


@pytest.fixture(scope="module")
def selections(plan):
    return selection_of_first_points(plan)


def test_the_study_counted_by_hand(plan, selections):
    baselines = Counter((run.experiment, run.method) for run in runs_of(plan, "baselines"))
    assert baselines == {
        **{("fixed", method): 2 for method in (*SILENT, *BASELINES)},  # 2 rates x 1 variance
        **{("learnable", method): 2 for method in BASELINES},  # 2 rates
        **{("learnable", method): 4 for method in SILENT},  # 2 rates x cut-off never or 30
    }
    assert baselines.total() == 24
    guided = Counter((run.experiment, run.method) for run in runs_of(plan, "guided", selections))
    assert guided == {("learnable", f"{method}+silent"): 2 for method in BASELINES}  # cut-off never or 30
    seeds = Counter((run.experiment, run.method) for run in runs_of(plan, "seeds", selections))
    assert set(seeds.values()) == {3}
    assert len(seeds) == 5 + 8
    assert len(plan.cells()) == 13


def test_the_grid_run_by_run(plan):
    found = {
        (
            run.experiment,
            run.method,
            run.learning_rate,
            run.mean_rate,
            run.variance,
            run.silent and (run.silent.mean_rate, run.silent.precision_rate, run.silent.cutoff_epoch),
        )
        for run in runs_of(plan, "baselines")
    }
    expected: set[Any] = {
        ("fixed", method, rate, rate, 0.01, None) for method in (*SILENT, *BASELINES) for rate in RATES["fixed"]
    }
    expected |= {("learnable", method, rate, None, None, None) for method in BASELINES for rate in RATES["learnable"]}
    expected |= {
        ("learnable", method, rate, None, None, (rate, rate, cutoff))
        for method, rate, cutoff in itertools.product(SILENT, RATES["learnable"], (None, 30))
    }
    assert found == expected
    assert {run.seed for run in runs_of(plan, "baselines")} == {0}


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_preset_of_the_repository_is_the_product_of_its_axes(preset):
    """Counted from the file's text; an axis that it does not set has one value."""
    document = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())
    plan = Plan(params.resolve({"preset": preset}, PRESETS))

    def concerned(experiment: str, method: str) -> tuple[str, ...]:
        if experiment != "learnable":
            return ("learning_rate", "mean_rate", "variance" if experiment == "fixed" else "precision_rate")
        if "+" in method:
            return ("mean_rate", "precision_rate", "annealing_rate", "cutoff_epoch")
        if method.startswith("silent-"):
            return ("learning_rate", "mean_rate", "precision_rate", "cutoff_epoch")
        return ("learning_rate", "mean_rate", "precision_rate") if "-silent-" in method else ("learning_rate",)

    expected: dict[str, int] = {}
    for experiment, datasets in document["experiments"].items():
        for dataset, asked in datasets.items():
            for method in asked["methods"]:
                grid = asked["grid"] | asked.get("overrides", {}).get(method, {}).get("grid", {})
                count = math.prod(len(grid.get(name, [None])) for name in concerned(experiment, method))
                expected[f"{dataset}/{experiment}/{method}"] = count
    chosen = selection_of_first_points(plan)
    found = Counter(run.cell for round_ in GRID_ROUNDS for run in runs_of(plan, round_, chosen))
    assert found == expected
    assert len(runs_of(plan, "seeds", chosen)) == len(expected) * len(document["seeds"])


def test_settings_of_the_section_reach_every_run(plan, selections):
    for run in runs_of(plan, "seeds", selections):
        assert (run.batch_size, run.latent_dim, run.data.name, run.data.shape) == (64, 32, "digits", (1, 8, 8))
        assert (run.data.protocol, run.data.holdout, run.data.levels) == ("holdout", 237, 17)
        assert run.network.encoder_channels == (4, 8, 8)
        assert run.network.decoder_channels == (() if run.experiment == "fixed" else (8,) * 5)
        assert run.snapshot_epochs == ((5, 20, 60) if run.experiment == "fixed" else ())
        assert run.gradient_clip == (None if run.experiment == "fixed" else 50)
        expected: dict[str, dict[str, float]] = {
            "none": {},
            "silent": {},
            "reparameterization": {"samples": 1},
            "gumbel-softmax": {"samples": 1, "temperature": 1.0},
            "reinforce": {"samples": 1, "decay": 0.99},
        }
        assert run.estimator_options == expected[run.estimator]
        assert run.posterior == METHODS[run.experiment][run.method].posterior


def test_reinforce_trains_longer_by_its_overrides(plan, selections):
    epochs = {(run.experiment, run.method): run.epochs for run in runs_of(plan, "seeds", selections)}
    longer = {("learnable", "reinforce"), ("learnable", "reinforce+silent")}
    assert {key for key, value in epochs.items() if value == 60 and key[0] == "learnable"} == longer
    assert {value for key, value in epochs.items() if key[0] == "learnable" and key not in longer} == {40}
    annealing = {
        run.method: (run.silent.plateau_epochs, run.silent.annealing_rate)
        for run in runs_of(plan, "guided", selections)
    }
    assert annealing == {
        "reparameterization+silent": (0.0, 0.08),
        "gumbel-softmax+silent": (0.0, 0.08),
        "reinforce+silent": (30.0, 0.033),
    }


def test_ids_and_names_are_unique(plan, selections):
    grid = [*runs_of(plan, "baselines"), *runs_of(plan, "guided", selections)]
    for runs in (grid, runs_of(plan, "seeds", selections)):
        assert len({run.id for run in runs}) == len({run.name for run in runs}) == len(runs)


def test_a_selected_grid_run_is_the_run_of_the_first_seed(plan, selections):
    grid = {run.id for round_ in GRID_ROUNDS for run in runs_of(plan, round_, selections)}
    chosen = {cell["run"] for cell in selections.values()}
    seeds = runs_of(plan, "seeds", selections)
    assert {run.id for run in seeds if run.seed == 0} <= grid
    assert {run.name for run in seeds if run.seed == 0} == chosen
    assert not {run.id for run in seeds if run.seed != 0} & grid


def test_the_grid_uses_the_first_seed_that_is_listed(make):
    plan = make({"seeds": [5, 0]})
    assert {run.seed for run in runs_of(plan, "baselines")} == {5}


def test_a_seed_of_its_own_makes_the_grid_another_one_and_leaves_the_reported_runs(make, plan, selections):
    other = make({"grid_seed": 7})
    assert {run.seed for run in runs_of(other, "baselines")} == {7}
    assert runs_of(other, "seeds", selections) == runs_of(plan, "seeds", selections)
    names = {run.name: run.id for round_ in ROUNDS for run in runs_of(other, round_, selections)}
    assert other.ids_of([*names, "digits/fixed/rloo/none"]) == names
    assert sum(each.count for each in other.trainings() if not each.repeated) == sum(
        each.count for each in plan.trainings() if not each.repeated
    ) + len(other.cells())


def test_one_other_rate_is_one_other_run_per_method(make):
    before = {run.id: run for run in runs_of(make(), "baselines")}
    changed = make(section("fixed", grid={"learning_rate": [0.001, 0.005]}))
    after = {run.id: run for run in runs_of(changed, "baselines")}
    gone, come = [before[key] for key in before.keys() - after], [after[key] for key in after.keys() - before]
    assert {(run.experiment, run.learning_rate) for run in gone} == {("fixed", 0.004)}
    assert {(run.experiment, run.learning_rate) for run in come} == {("fixed", 0.005)}
    assert len(gone) == len(come) == 5
    # With one method changed alone, one run is.
    override = {"reinforce": {"grid": {"learning_rate": [0.001, 0.005]}}}
    overridden = {run.id: run for run in runs_of(make(section("fixed", overrides=override)), "baselines")}
    (other,) = [overridden[key] for key in overridden.keys() - before]
    assert (other.method, other.learning_rate) == ("reinforce", 0.005)


def test_guided_methods_train_at_their_baselines_rate(plan, selections):
    chosen = copy.deepcopy(selections)
    chosen["digits/learnable/reinforce"]["point"] = {"learning_rate": 0.003}
    rates = {run.method: run.learning_rate for run in runs_of(plan, "guided", chosen)}
    assert rates == {"reparameterization+silent": 0.001, "gumbel-softmax+silent": 0.001, "reinforce+silent": 0.003}


AXES = {
    "learning_rate": [0.001, 0.002, 0.003],
    "mean_rate": [0.01, 0.02],
    "precision_rate": [0.01, 0.02],
    "annealing_rate": [0.1, 0.2, 0.3],
    "cutoff_epoch": [None, 10],
    "variance": [0.01, 0.1],
}


def test_an_axis_multiplies_the_methods_that_it_concerns_alone(make):
    plan = make({"experiments": {name: {"digits": {"grid": AXES}} for name in ("fixed", "learnable")}})
    chosen = selection_of_first_points(plan)
    counts = Counter((run.experiment, run.method) for run in runs_of(plan, "baselines"))
    assert counts == {
        **{("fixed", method): 3 * 2 * 2 for method in (*SILENT, *BASELINES)},
        **{("learnable", method): 3 for method in BASELINES},
        **{("learnable", method): 3 * 2 * 2 * 2 for method in SILENT},
    }
    guided = Counter(run.method for run in runs_of(plan, "guided", chosen))
    # The settings' annealing rates replace those of REINFORCE's overrides in the preset.
    assert guided == {f"{method}+silent": 2 * 2 * 2 * 3 for method in BASELINES}
    for run in runs_of(plan, "baselines"):
        assert (run.variance is None) == (run.experiment == "learnable")
        assert (run.mean_rate is None) == (run.experiment == "learnable")
        assert (run.silent is None) == (run.method not in SILENT or run.experiment == "fixed")


def test_a_null_rate_is_the_learning_rate(make):
    grid = {"learning_rate": [0.001, 0.002], "mean_rate": [None, 0.002], "precision_rate": [None]}
    plan = make({"experiments": {name: {"digits": {"grid": grid}} for name in ("fixed", "learnable")}})
    runs = runs_of(plan, "baselines")
    rates = sorted({(run.learning_rate, run.mean_rate) for run in runs if run.experiment == "fixed"})
    # The point (0.002, null) and the point (0.002, 0.002) are one run.
    assert rates == [(0.001, 0.001), (0.001, 0.002), (0.002, 0.002)]
    assert sum(run.cell == "digits/fixed/reinforce" for run in runs) == 3
    for run in runs:
        if run.silent is not None:
            assert run.silent.precision_rate == run.learning_rate
            assert run.silent.mean_rate in (run.learning_rate, 0.002)


def test_the_log_linear_experiment_has_rates_of_both_heads(make):
    methods = ["silent-gaussian", "reinforce"]
    grid = {"learning_rate": [0.001, 0.002], "mean_rate": [None], "precision_rate": [None, 0.01]}
    asked = SMALL | {"methods": methods, "grid": grid}
    runs = runs_of(make({"experiments": {"log-linear": {"digits": asked}}}), "baselines")
    own = [run for run in runs if run.experiment == "log-linear"]
    rates = {(run.method, run.learning_rate, run.mean_rate, run.precision_rate) for run in own}
    assert rates == {
        (method, rate, rate, other) for method in methods for rate in (0.001, 0.002) for other in (rate, 0.01)
    }
    assert len(own) == 8
    for run in own:
        assert (run.variance, run.silent, run.network.decoder_channels) == (None, None, ())
    assert all(run.precision_rate is None for run in runs if run.experiment != "log-linear")


def test_the_two_layer_experiment_has_a_fixed_variance_or_learned_ones(make):
    asked = SMALL | {
        "methods": ["silent-gaussian", "reinforce"],
        "overrides": {"silent-gaussian": {"activation": "cosine", "pixel_variances": "learned"}},
        "hidden_units": 7,
        "grid": {"learning_rate": [0.001], "variance": [0.1, 0.01]},
    }
    runs = runs_of(make({"experiments": {"two-layer": {"digits": asked}}}), "baselines")
    own = [(run.method, run.activation, run.variance) for run in runs if run.experiment == "two-layer"]
    fixed = [("reinforce", "square", variance) for variance in (0.1, 0.01)]
    assert own == [("silent-gaussian", "cosine", None), *fixed]
    for run in runs:
        own_network = (run.hidden_units, run.mean_rate, run.network.decoder_channels)
        assert own_network == (7, 0.001, ()) if run.experiment == "two-layer" else run.hidden_units is None


def test_precision_and_guide_reach_the_runs(make):
    over = {"precision": "tf32", "overrides": {"silent-bernoulli": {"guide": "log-linear"}}}
    for run in runs_of(make(section("learnable", **over)), "baselines"):
        if run.experiment == "learnable":
            assert run.precision == "tf32"
            guide = {"silent-gaussian": "linear", "silent-bernoulli": "log-linear"}.get(run.method)
            assert (run.silent and run.silent.guide) == guide
        else:
            assert run.precision == "float32"


def test_estimator_options_reach_the_methods_that_have_them(make):
    over = {
        "estimator_options": {"temperature": 0.5, "samples": 3},
        "overrides": {"reinforce": {"estimator_options": {"samples": 2}}},
    }
    runs = [run for run in runs_of(make(section("fixed", **over)), "baselines") if run.experiment == "fixed"]
    assert {run.method: run.estimator_options for run in runs} == {
        "silent-gaussian": {},
        "silent-bernoulli": {},
        "reparameterization": {"samples": 3},
        "gumbel-softmax": {"samples": 3, "temperature": 0.5},
        "reinforce": {"samples": 2, "decay": 0.99},
    }


def test_a_sampled_guide_and_a_control_reach_the_runs(make):
    control = "reinforce-silent-control"
    methods = ["reinforce", "reinforce+silent", "reinforce+sampled", control, f"{control}+silent"]
    plan = make(section("learnable", methods=methods, overrides={"reinforce": None, "reinforce+silent": None}))
    chosen = selection_of_first_points(plan)
    first = {run.method: run for run in runs_of(plan, "seeds", chosen) if run.experiment == "learnable"}
    roles = {name: run.silent and (run.silent.role, run.silent.sampled) for name, run in first.items()}
    assert roles == {
        "reinforce": None,
        "reinforce+silent": ("annealed", False),
        "reinforce+sampled": ("annealed", True),
        control: ("control", False),
        f"{control}+silent": ("annealed", False),
    }
    silent, sampled = first["reinforce+silent"].silent, first["reinforce+sampled"].silent
    assert dataclasses.replace(silent, sampled=True) == sampled
    # The guide of a control has rates, and no schedule: nothing anneals and nothing is frozen.
    counts = Counter(run.method for run in runs_of(plan, "baselines") if run.experiment == "learnable")
    assert counts == {"reinforce": 2, control: 2}
    found = first[control].silent
    assert (found.plateau_epochs, found.annealing_rate, found.cutoff_epoch) == (0.0, 0.0, None)
    assert found.mean_rate == found.precision_rate == first[control].learning_rate
    assert {run.method for run in runs_of(plan, "guided", chosen)} == set(methods) - {"reinforce", control}


def test_a_round_before_its_selection_is_an_error(make, plan, selections, tmp_path):
    only_baselines = {cell.name: selections[cell.name] for cell in plan.cells_of("baselines")}
    for round_, found in (("guided", {}), ("seeds", {}), ("seeds", only_baselines)):
        missing = "guided" if found else "baselines"
        with pytest.raises(SelectionMissingError, match=f"{missing} round has not been made"):
            plan.packs(round_, found)
    empty = make(results=tmp_path)
    with pytest.raises(SelectionMissingError) as caught:
        empty.selections("guided")
    path = empty.selection_path("baselines", "digits/learnable", {})
    assert f"snakemake --cores all {path}" in str(caught.value)
    assert empty.selections("baselines") == {}


def write_selections(plan: Plan, selections: Any) -> None:
    """Write the selections of every grid round."""
    for group in plan.groups():
        for round_ in plan.rounds(group)[:-1]:
            cells = {cell.name: selections[cell.name] for cell in plan.cells_of(round_, group)}
            path = plan.selection_path(round_, group, plan.selections(round_, group))
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(as_json({"round": round_, "cells": cells}))


def test_selections_are_read_from_where_they_are_written(make, selections, tmp_path):
    plan = make(results=tmp_path)
    write_selections(plan, selections)
    for group in plan.groups():
        own = {cell.name for cell in plan.cells() if cell.group == group}
        assert plan.selections("seeds", group) == {name: selections[name] for name in selections if name in own}
    assert plan.selections("seeds") == selections
    baselines = {cell.name for cell in plan.cells_of("baselines", "digits/learnable")}
    assert plan.selections("guided").keys() == baselines
    assert plan.selections("baselines") == {}


def test_a_cell_that_diverged_everywhere_has_no_seeds(plan, selections):
    chosen = copy.deepcopy(selections)
    chosen["digits/fixed/reinforce"]["status"] = "diverged"
    runs = runs_of(plan, "seeds", chosen)
    assert len(runs) == 39 - 3
    assert not any(run.cell == "digits/fixed/reinforce" for run in runs)


def test_the_plan_knows_its_presets_name(study, plan, selections, tmp_path):
    (tmp_path / "other.yaml").write_text((study / "study.yaml").read_text())
    other = Plan(params.resolve({"preset": "other"}, tmp_path))
    assert runs_of(other, "baselines") == runs_of(plan, "baselines")
    assert other.id(selections) != plan.id(selections)


@pytest.mark.parametrize(("workers", "longest"), [(1, 64), (16, 64), (16, 4), (3, 7), (100, 3)])
def test_runs_that_share_epochs_are_in_one_pack_if_it_holds_them(make, workers, longest):
    grid = {"learning_rate": [0.001, 0.002, 0.003], "cutoff_epoch": [10, 20, 30, None]}
    own = section("learnable", grid=grid) | {"execution": {"workers": workers, "runs_per_pack": longest}}
    packs = make(own).packs("baselines", {}, "digits/learnable")
    assert all(1 <= len(pack.members) <= longest for pack in packs)
    places = {(run.without_cutoff.id, number) for number, pack in enumerate(packs) for run in pack.members}
    families = {family for family, _ in places}
    assert (len(places) == len(families)) == (longest >= 4)


def test_how_jobs_are_cut_changes_no_run(make, plan, selections):
    other = make({"execution": {"workers": 5, "runs_per_pack": 3}})
    for round_ in ROUNDS:
        assert runs_of(other, round_, selections) == runs_of(plan, round_, selections)


def test_paths_carry_ids(plan, selections):
    manifests = [plan.manifest(pack) for round_ in ROUNDS for pack in plan.packs(round_, selections)]
    assert len(set(manifests)) == len(manifests)
    for round_ in ROUNDS:
        for pack in plan.packs(round_, selections):
            assert plan.manifest(pack) == Path("results/packs") / round_ / pack.group / f"{pack.id}.json"
    group = "digits/learnable"
    path = plan.selection_path("guided", group, selections)
    assert path == Path(f"results/selections/{group}/guided-{plan.selection_id('guided', group, selections)}.json")


def test_no_run_is_made_only_to_be_counted(make, monkeypatch):
    """Known runs are made once; of those that wait for a selection, one for every length."""
    made, run = [], Plan.run

    def counted(plan, cell, point, seed):
        made.append(cell)
        return run(plan, cell, point, seed)

    monkeypatch.setattr(Plan, "run", counted)
    rates = [0.001 + 0.0001 * number for number in range(30)]
    plan = make({"seeds": list(range(40)), **section("learnable", grid={"learning_rate": rates})})
    text = overview(plan)
    known = 5 * 2 + 3 * 30 + 2 * 30 * 2  # with a fixed variance; learnable without and with two cut-offs
    assert f"baselines: {known} runs" in text
    assert "seeds: at most 520 runs in 13 cells" in text
    assert len(made) <= known + 4 * len(plan.cells())
    overview(plan)
    assert len(made) <= known + 8 * len(plan.cells())


def test_a_plan_is_made_anew_where_the_settings_or_the_data_change(make, plan, monkeypatch):
    assert plan.renewed(make().params) is plan
    other = make({"seeds": [7]}).params
    assert plan.renewed(other).params is other
    changed = make().params
    monkeypatch.setitem(
        changed.sources, "digits", dataclasses.replace(changed.sources["digits"], arrays_sha256="0" * 64)
    )
    assert plan.renewed(changed).params is changed


def test_the_overview_counts_what_is_done_and_what_is_to_come(make, selections, tmp_path):
    plan = make(results=tmp_path)
    lines = overview(plan).splitlines()
    assert lines[0] == "preset study, protocol holdout, seeds [0, 1, 2]"
    assert "baselines: 24 runs in 4 packs, 24 to be trained" in lines
    assert "  digits/learnable/silent-gaussian: 4 runs of 40 epochs" in lines
    assert "  digits/learnable/reinforce: 2 runs of 60 epochs" in lines
    assert "guided: at most 6 runs in 3 cells, once the rounds before it are selected" in lines
    assert "seeds: at most 39 runs in 13 cells, once the rounds before it are selected" in lines

    store = RunStore(tmp_path / "store")

    def finish(runs):
        for run in runs:
            store.folder(run.name).mkdir(parents=True, exist_ok=True)
            (store.folder(run.name) / RECORD).touch()
            write_json(store.folder(run.name) / CODE, training_code(run.estimator))

    grid = [run for pack in plan.packs("baselines", {}) for run in pack.members]
    finish(grid[:5])
    assert "baselines: 24 runs in 4 packs, 5 done, 19 to be trained" in overview(plan).splitlines()
    finish(grid)
    lines = overview(plan).splitlines()
    assert "baselines: 24 runs in 4 packs, all done" in lines
    assert "nothing to train: every run is done" not in lines  # others wait for a selection

    write_selections(plan, selections)
    assert lines[-1].startswith("how long: not known")
    for round_ in ROUNDS[1:]:
        finish(run for pack in plan.packs(round_, plan.selections(round_)) for run in pack.members)
    assert overview(plan).splitlines()[-1] == "nothing to train: every run is done"
