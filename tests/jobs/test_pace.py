"""How long a plan takes: the times of steps, multiplied by hand."""

import dataclasses
import json
import math
import re
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import CPU

from silent_study import cli
from silent_study.data.source import Source
from silent_study.jobs import stopwatch
from silent_study.jobs.lease import Lease
from silent_study.jobs.pace import (
    DEFAULT_MEGABYTES,
    DEFAULT_MINUTES,
    PACE,
    Pace,
    Steps,
    architecture,
    epochs_by_phase,
)
from silent_study.jobs.stopwatch import measured_pace
from silent_study.params import resolve
from silent_study.plan.plan import Plan
from silent_study.progress.overview import overview
from silent_study.settings import EvaluationSettings
from silent_study.store.packs import PackSpec
from silent_study.store.runs import StoreError
from silent_study.training.build import silent_schedule
from silent_study.training.steps import Stepper
from silent_study.words import duration

TIMES = Steps(guided=3.0, plain=2.0, frozen=1.0, evaluated=0.01)
ASKED = EvaluationSettings(samples=5, variance_images=32, variance_draws=10, reconstructions=2)


@pytest.fixture
def plan(study, tmp_path):
    return Plan(resolve({"preset": "study"}, study), tmp_path)


@pytest.fixture
def here(study, tmp_path, monkeypatch):
    """A working folder with the presets of ``study``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "presets").symlink_to(study)


def first(plan, name):
    (cell,) = [cell for cell in plan.cells() if cell.name == name]
    return plan.possible_runs(cell, "seeds")[0]


def source_of(tiny, **changes):
    data = tiny.prepared
    counts = {"train": len(data.train), "test": len(data.test), "holdout": len(data.train) // 4}
    described = {"levels": data.levels, "shape": data.shape, "arrays_sha256": data.sha256, "forms": ()}
    return Source(**{"name": "tiny", "title": "Tiny", "version": "generated", **described, **counts, **changes})


def pace_of(runs, times=TIMES):
    kinds = [architecture(run) for run in runs]
    return Pace("cpu", "a processor", "2.15.0", 1, dict.fromkeys(kinds, times), dict.fromkeys(kinds, 1000.0))


def test_epochs_are_told_apart_by_phase(plan):
    by_cutoff = {
        run.silent.cutoff_epoch: epochs_by_phase(run) for run in first(plan, "digits/learnable/silent-gaussian")
    }
    assert by_cutoff == {
        None: {"guided": 40, "plain": 0, "frozen": 0},
        30: {"guided": 30, "plain": 0, "frozen": 10},
    }
    # 0.08 an epoch: above zero before the epochs 0 to 12.
    runs = first(plan, "digits/learnable/reparameterization+silent")
    annealed = {run.silent.cutoff_epoch: epochs_by_phase(run) for run in runs}
    assert annealed == {
        None: {"guided": 13, "plain": 27, "frozen": 0},
        30: {"guided": 13, "plain": 17, "frozen": 10},
    }
    control = dataclasses.replace(runs[0].silent, role="control", annealing_rate=0.0)
    assert epochs_by_phase(dataclasses.replace(runs[0], silent=control)) == {"guided": 0, "plain": 40, "frozen": 0}
    (alone, *_) = first(plan, "digits/learnable/reinforce")
    assert epochs_by_phase(alone) == {"guided": 0, "plain": 60, "frozen": 0}


def test_phases_are_counted_as_the_schedule_of_a_training_has_them(tiny):
    run = tiny.settings("learnable/reparameterization+silent")
    roles, plateaus, cutoffs = ("only", "annealed"), (0.0, 0.5, 3.0, 40.0), (None, 1, 7, 30, 45)
    rates = (0.01, 0.033, 0.07, 0.08, 0.1, 0.2, 0.25, 1 / 3, 1 / 49, 0.9, 1.0, 2.5)
    for role, plateau, rate, cutoff, epochs in product(roles, plateaus, rates, cutoffs, (1, 13, 40)):
        silent = dataclasses.replace(
            run.silent, role=role, plateau_epochs=plateau, annealing_rate=rate, cutoff_epoch=cutoff
        )
        schedule = silent_schedule(silent)
        phases = Counter(
            "frozen" if schedule.frozen(epoch) else "guided" if schedule.weight(epoch) > 1e-9 else "plain"
            for epoch in range(epochs)
        )
        found = epochs_by_phase(dataclasses.replace(run, silent=silent, epochs=epochs))
        assert found == {phase: phases[phase] for phase in ("guided", "plain", "frozen")}


def test_a_trainings_time_is_that_of_its_steps_and_evaluations(plan):
    runs = first(plan, "digits/learnable/reparameterization+silent")
    run = next(run for run in runs if run.silent.cutoff_epoch == 30)
    # 1200 of the 1437 training images in batches of 64; 40 evaluations of 237 images with 4 samples each.
    steps = 18 * (13 * 3.0 + 17 * 2.0 + 10 * 1.0)
    assert pace_of([run]).training(run) == pytest.approx(steps + 40 * 237 * 4 * 0.01)
    # Two splits of 360 images, and no snapshot to measure the gradient's variance at.
    assert pace_of([run]).evaluation(run, ASKED) == pytest.approx(2 * 360 * 5 * 0.01)
    weighted = dataclasses.replace(ASKED, importance_samples=50)
    assert pace_of([run]).evaluation(run, weighted) == pytest.approx(360 * (2 * 5 + 50) * 0.01)
    (fixed, *_) = first(plan, "digits/fixed/reinforce")
    assert pace_of([fixed]).evaluation(fixed, ASKED) == pytest.approx(2 * 360 * 5 * 0.01 + 3 * 10 * 0.5 * 2.0)


def test_what_was_not_measured_is_not_known(plan):
    (run, *_) = first(plan, "digits/fixed/reinforce")
    (other, *_) = first(plan, "digits/fixed/gumbel-softmax")
    pace = pace_of([run])
    assert pace.training(other) is None
    assert pace.evaluation(other, ASKED) is None
    assert pace.pack(PackSpec("baselines", run.cell, (run, other), None)) is None


def test_rates_seeds_and_epochs_change_no_steps_time(plan):
    for name in ("digits/fixed/reinforce", "digits/learnable/reparameterization+silent"):
        assert len({architecture(run) for run in first(plan, name)}) == 1
    every = [first(plan, cell.name)[0] for cell in plan.cells()]
    assert len({architecture(run) for run in every}) == len(every)


def test_a_scheduler_grants_half_again(plan):
    (run, *_) = first(plan, "digits/fixed/reinforce")
    grid, seeds = PackSpec("baselines", run.cell, (run,), None), PackSpec("seeds", run.cell, (run,), ASKED)
    pace = pace_of([run])
    assert pace.granted_minutes(grid) == math.ceil(1.5 * pace.training(run) / 60) + 5
    assert pace.granted_minutes(seeds) > pace.granted_minutes(grid)
    assert Pace().granted_minutes(grid) == DEFAULT_MINUTES


def test_a_scheduler_grants_the_memory_of_the_largest_and_more(plan):
    runs = [first(plan, name)[0] for name in ("digits/fixed/reinforce", "digits/learnable/reinforce")]
    pack = PackSpec("baselines", "digits", tuple(runs), None)
    pace = dataclasses.replace(pace_of(runs), megabytes={architecture(runs[0]): 800.0, architecture(runs[1]): 2000.0})
    assert pace.granted_megabytes(pack) == 2500 + 512
    assert pace_of(runs[:1]).granted_megabytes(pack) == Pace().granted_megabytes(pack) == DEFAULT_MEGABYTES


def test_a_pace_is_read_back(plan, tmp_path):
    (run, *_) = first(plan, "digits/fixed/reinforce")
    path = tmp_path / PACE
    assert Pace.read(path) == Pace()
    path.write_text(pace_of([run]).to_json())
    assert Pace.read(path) == pace_of([run])
    document = json.loads(path.read_text())
    damages: list[Any] = [{**document, "steps": {"x": {"plain": 1}}}, {"steps": {}}, []]
    for damaged in damages:
        path.write_text(json.dumps(damaged))
        with pytest.raises(StoreError, match=r"pace\.json: no measured pace .*silent-gradients pace"):
            Pace.read(path)


def test_the_overview_tells_hours_once_they_are_known(plan):
    assert overview(plan).endswith("how long: not known before this device is measured: silent-gradients pace")
    runs = [plan.first_run(cell) for cell in plan.cells()]
    (plan.results / PACE).write_text(pace_of(runs).to_json())
    lines = overview(plan).splitlines()
    # By hand: a grid of two rates, two more seeds, three evaluations; all of 60 epochs, evaluated after each.
    training = 18 * 60 * 2.0 + 60 * 237 * 4 * 0.01
    evaluation = 2 * 360 * 16 * 0.01 + 3 * 100 * 1.0 * 2.0
    assert f"  digits/fixed/reinforce: 4 trainings, {duration(4 * training + 3 * evaluation)}" in lines
    # Four points of which the longest may be selected: that of the encoder that is never frozen.
    assert any(line.startswith("  digits/learnable/silent-gaussian: 6 trainings, ") for line in lines)
    assert lines[-1].startswith("in all: ")
    (plan.results / PACE).write_text(pace_of(runs[1:]).to_json())
    lines = overview(plan).splitlines()
    assert "  digits/fixed/silent-gaussian: 4 trainings, not measured; silent-gradients pace" in lines
    assert lines[-1].endswith("not measured; silent-gradients pace")


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("cell", ["fixed/silent-gaussian", "learnable/reinforce", "learnable/gumbel-softmax+silent"])
def test_steps_of_every_phase_are_timed(tiny, cell, stack):
    settings = tiny.settings(cell)
    (times,) = measured_pace([settings], {"tiny": source_of(tiny)}, CPU, 2, stack).steps.values()
    assert all(value > 0 for value in (times.guided, times.plain, times.frozen, times.evaluated))
    assert (times.guided == times.plain) == (settings.silent is None)


def test_slow_steps_are_measured_in_fewer_rounds(tiny, monkeypatch):
    monkeypatch.setattr(stopwatch, "LONGEST", 0.0)
    run = tiny.settings("fixed/reinforce")
    pace = measured_pace([run], {"tiny": source_of(tiny)}, CPU, rounds=10**9)
    assert min(dataclasses.asdict(pace.steps[architecture(run)]).values()) > 0


def test_a_device_is_measured_once_per_kind_of_step(tiny):
    runs = [
        tiny.settings("fixed/reinforce"),
        tiny.settings("fixed/reinforce", seed=3),
        tiny.settings("fixed/silent-gaussian"),
    ]
    pace = measured_pace(runs, {"tiny": source_of(tiny)}, CPU, rounds=1)
    assert set(pace.steps) == {architecture(run) for run in runs}
    assert len(pace.steps) == 2
    assert (pace.device, pace.torch, pace.stack) == ("cpu", torch.__version__, 1)
    assert set(pace.megabytes) == set(pace.steps)
    assert all(50 < megabytes < 5000 for megabytes in pace.megabytes.values())
    assert pace.training(runs[0])  # of a data set that the package does not have


def test_the_images_that_are_not_there_count_as_memory(tiny):
    run = tiny.settings("fixed/reinforce")
    few, many = (
        measured_pace([run], {"tiny": source_of(tiny, train=train)}, CPU, rounds=1).megabytes[architecture(run)]
        for train in (1_000, 1_000 + 2**30 // run.data.dimensions)
    )
    assert many - few == pytest.approx(1024, abs=50)  # a byte per pixel


@pytest.mark.parametrize(
    ("device", "steps", "captured"), [("cuda", "graph", True), ("cuda", "eager", False), ("cpu", "graph", False)]
)
@pytest.mark.usefixtures("here")
def test_the_command_line_measures_steps_as_the_settings_ask(monkeypatch, device, steps, captured):
    found: list[Any] = []

    def measured_pace(*_, **asked):
        found.append(asked)
        raise StoreError("measured")

    monkeypatch.setattr("silent_study.jobs.lease.acquire", lambda: Lease(device, "0"))
    monkeypatch.setattr("silent_study.jobs.stopwatch.measured_pace", measured_pace)
    monkeypatch.setattr("silent_study.training.device.configure_torch", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert cli.main(["pace", "--config", json.dumps({"preset": "study", "execution": {"steps": steps}})]) == 1
    assert found == [{"captured": captured}]


@pytest.mark.usefixtures("here")
def test_leases_that_cannot_be_had_are_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "leases").touch()
    monkeypatch.setenv("SILENT_GRADIENTS_LEASES", str(tmp_path / "leases"))
    assert cli.main(["pace", "--config", json.dumps({"preset": "study"})]) == 1
    assert str(tmp_path / "leases") in capsys.readouterr().err.splitlines()[-1]


def test_a_measured_pace_is_that_of_the_steps_asked_for(tiny, monkeypatch):
    asked = []

    def stepper(**kinds):
        asked.append(kinds)
        return Stepper(**{**kinds, "captured": False})

    monkeypatch.setattr("silent_study.jobs.stopwatch.Stepper", stepper)
    sources = {"tiny": source_of(tiny)}
    for captured in (True, False):
        measured_pace([tiny.settings("fixed/reinforce")], sources, CPU, rounds=1, captured=captured)
    assert asked == [{"stacked": False, "captured": True}, {"stacked": False, "captured": False}]


@pytest.mark.usefixtures("here", "cpu_command")
def test_the_command_line_measures_what_the_plan_then_tells(capsys):
    pytest.importorskip("sklearn")
    config = ["--config", json.dumps({"preset": "study"})]
    assert cli.main(["pace", *config, "--rounds", "1"]) == 0
    assert not Path("data").exists()
    assert "13 kinds of steps in results/pace.json" in capsys.readouterr().out
    assert cli.main(["plan", *config]) == 0
    total = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"in all: \d+ trainings, \d+ (h|min) \d\d (min|s)", total)
