"""The changes of settings that the study makes, and what it keeps of its runs."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from studies.sensitivity import CHANGES, ON_REQUEST, change_named, paired, runs_of

from silent_study import params
from silent_study.plan.plan import Plan
from silent_study.training.build import silent_schedule

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plan():
    return Plan(params.resolve({"preset": "digits"}, REPOSITORY / "presets"))


def run_of(plan, name, changes="", **options):
    (cell,) = (cell for cell in plan.cells() if cell.name == name)
    (run,) = runs_of(plan, cell, change_named(changes) if changes else lambda run: run, 1, **options)
    return run


@pytest.mark.parametrize("name", [*CHANGES, *ON_REQUEST])
def test_every_change_concerns_some_run_and_changes_the_data_of_none(plan, name):
    changed = 0
    for cell in plan.cells():
        # The second pair is for changes to what the preset has already.
        pairs = {"": name, "temperature=1+last_layer=0.1": f"temperature=1+last_layer=0.1+{name}"}
        for first, second in pairs.items():
            before, after = run_of(plan, cell.name, first), run_of(plan, cell.name, second)
            assert (after.data, after.seed) == (before.data, before.seed)
            assert after.epochs == before.epochs or name == "epochs*1.1"
            changed += after != before
    assert changed


def test_rates_are_divided_together(plan):
    for name in ("digits/fixed/reinforce", "digits/learnable/reinforce+silent"):
        before, after = run_of(plan, name), run_of(plan, name, "rates/5")
        rates = [(before.learning_rate, after.learning_rate), (before.mean_rate, after.mean_rate)]
        if before.silent is not None and after.silent is not None:
            rates += [(before.silent.mean_rate, after.silent.mean_rate)]
            rates += [(before.silent.precision_rate, after.silent.precision_rate)]
        for usual, lower in rates:
            assert lower == (None if usual is None else pytest.approx(usual / 5))


def test_a_guide_of_the_first_quarter_has_all_of_the_weight_there_and_none_after_it(plan):
    run = run_of(plan, "digits/learnable/gumbel-softmax+silent", "guide=first-quarter")
    schedule = silent_schedule(run.silent)
    assert [schedule.weight(epoch) for epoch in (0, 9.99, 10.01, 39)] == [1, 1, 0, 0]


def test_a_sampled_guide_is_another_method(plan):
    run = run_of(plan, "digits/learnable/gumbel-softmax+silent", "guide=sampled")
    assert (run.method, run.silent.sampled) == ("gumbel-softmax+sampled", True)


def test_rates_of_the_guide_are_its_own(plan):
    before = run_of(plan, "digits/learnable/reinforce+silent")
    after = run_of(plan, "digits/learnable/reinforce+silent", "guide_rates*5")
    assert after.silent.mean_rate == pytest.approx(5 * before.silent.mean_rate)
    assert after.silent.precision_rate == pytest.approx(5 * before.silent.precision_rate)
    assert replace(after, silent=before.silent) == before


def test_joined_changes_are_made_one_after_another(plan):
    run = run_of(plan, "digits/fixed/reinforce", "rates/5+samples=4")
    assert run == run_of(plan, "digits/fixed/reinforce", "samples=4+rates/5")
    assert run.estimator_options["samples"] == 4
    assert run.learning_rate == run_of(plan, "digits/fixed/reinforce", "rates/5").learning_rate


def test_a_longer_run_is_measured_where_the_usual_one_ends(plan):
    usual, longer = run_of(plan, "digits/fixed/reinforce"), run_of(plan, "digits/fixed/reinforce", epochs=150)
    assert (longer.epochs, longer.evaluate_every) == (150, usual.epochs)


def test_a_cooldown_is_half_of_the_epochs_that_are_trained(plan):
    longer = run_of(plan, "digits/fixed/reinforce", "cooldown=epochs/2", epochs=150)
    assert longer.cooldown_epochs == 75


def test_an_unknown_change_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"'rates/7' is no change; there are: .*rates/5"):
        change_named("rates/5+rates/7")


def test_differences_of_one_seed_have_no_interval():
    assert paired([1.5], [1.0]) == "+0.500 (one seed)"
    assert paired([float("nan")], [1.0]) == "diverged"
    # Differences of 0.1, 0.2, 0.3: mean 0.2, standard error 0.0577, Student's quantile 4.303.
    assert paired([1.1, 1.2, 1.3], [1.0, 1.0, 1.0]) == "+0.200 ± 0.248"


def test_the_study_keeps_every_run_with_its_metrics_and_the_way_to_them(tmp_path):
    command = [sys.executable, "studies/sensitivity.py", "--only", "fixed/reinforce", "--seeds", "2"]
    command += ["--epochs", "2", "--changes", "rates/2+samples=4", "--results", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    shown = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout
    kept = json.loads((tmp_path / "runs.json").read_text())["digits/fixed/reinforce"]
    bounds = json.loads((tmp_path / "bits_per_dim.json").read_text())["digits/fixed/reinforce"]
    assert list(kept) == list(bounds) == ["as it is", "rates/2+samples=4"]
    for name, runs in kept.items():
        assert [run["selection"]["bpd"] for run in runs] == bounds[name]
        assert [list(run["bits_per_dim"].values())[-1] for run in runs] == bounds[name]
    assert "rates/2+samples=4" in shown


def test_the_first_point_of_a_grid_can_be_changed_instead_of_the_last(plan):
    grid = plan.params.for_method("fixed", "digits", "reinforce").grid.model_dump()
    assert grid["learning_rate"][0] != grid["learning_rate"][-1]
    assert run_of(plan, "digits/fixed/reinforce").learning_rate == grid["learning_rate"][-1]
    assert run_of(plan, "digits/fixed/reinforce", point=0).learning_rate == grid["learning_rate"][0]
