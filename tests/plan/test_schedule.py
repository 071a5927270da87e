"""The jobs of preset ``paper`` on eight devices, simulated: they end at about the same time."""

import dataclasses
import heapq
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from silent_study.jobs.pace import PACE, Pace, Steps, architecture
from silent_study.store.runs import write_json
from silent_study.workflow import Workflow

PRESETS = Path(__file__).parents[2] / "presets"
DEVICES = 8


def measured(plan, microseconds) -> Pace:
    """A pace of so many microseconds per image of each data set."""
    steps = {}
    for run in (plan.first_run(cell) for cell in plan.cells()):
        image = microseconds[run.data.name] * 1e-6
        plain = image * run.batch_size
        steps[architecture(run)] = Steps(1.3 * plain, plain, plain / 2, image / 10)
    return Pace("cuda", "a device", "2.0", 1, steps, {}, plan.params.sources)


def makespan(study, pace) -> tuple[float, float, float]:
    """Seconds until the last job ends, of all jobs over the devices, and of the longest one.

    Jobs begin in the order of their priority as soon as a device is free; a round begins when the one before it is
    selected. Jobs train the members that no earlier job has trained, and the epochs that members share once.
    """
    waiting: list[Any] = []
    running: list[Any] = []
    left: dict[tuple[str, str], int] = {}
    trained: set[str] = set()
    seconds: list[float] = []

    def begin(round_, group):
        packs = study.packs(round_, group)
        left[round_, group] = len(packs)
        for pack in packs.values():
            priority = study.priority(SimpleNamespace(round=round_, group=group, id=pack.id))
            new = [run for run in pack.members if run.id not in trained]
            parts = [pace.training(run) for run in new]
            shared = [
                dataclasses.replace(run, epochs=run.unfrozen_epochs) for run in new if pack.trunks[run.name] != run
            ]
            parts += [-pace.training(run) for run in shared]
            parts += [pace.evaluation(run, pack.evaluation) for run in pack.members if pack.evaluation is not None]
            seconds.append(sum(parts))
            trained.update(run.id for run in pack.members)
            heapq.heappush(waiting, (-priority, len(seconds), round_, group))

    def end(round_, group):
        left[round_, group] -= 1
        rounds = study.plan.rounds(group)
        if not left[round_, group] and round_ != rounds[-1]:
            selections, cells = study.selections(round_, group), {}
            for cell in study.plan.cells_of(round_, group):
                cells[cell.name] = {"status": "selected", "point": study.plan.points(cell, selections)[0]}
            write_json(study.plan.selection_path(round_, group, selections), {"cells": cells})
            begin(rounds[rounds.index(round_) + 1], group)

    for group in study.plan.groups():
        begin(study.plan.rounds(group)[0], group)
    now = 0.0
    while waiting or running:
        while waiting and len(running) < DEVICES:
            _, number, *of = heapq.heappop(waiting)
            heapq.heappush(running, (now + seconds[number - 1], number, *of))
        now, _, *of = heapq.heappop(running)
        end(*of)
    return now, sum(seconds) / DEVICES, max(seconds)


@pytest.mark.parametrize(
    "microseconds",
    [
        {"mnist": 8, "cifar10": 40, "imagenet32": 40},
        {"mnist": 2, "cifar10": 30, "imagenet32": 100},
        {"mnist": 5, "cifar10": 100, "imagenet32": 30},
    ],
    ids=["alike", "long ImageNet", "long CIFAR-10"],
)
@pytest.mark.parametrize("paced", [True, False], ids=["measured", "estimated"])
def test_eight_devices_end_within_three_percent_of_the_bound(tmp_path, monkeypatch, microseconds, paced):
    monkeypatch.chdir(tmp_path)
    plan = Workflow({"preset": "paper"}, lambda **_: None, PRESETS).plan
    pace = measured(plan, microseconds)
    if paced:
        write_json(Path("results") / PACE, json.loads(pace.to_json()))
    study = Workflow({"preset": "paper"}, lambda **_: None, PRESETS)
    found, shared, longest = makespan(study, pace)
    assert found < 1.03 * max(shared, longest)


def test_packs_of_the_paper_hold_runs_of_one_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Workflow({"preset": "paper"}, lambda **_: None, PRESETS)
    for group in study.plan.groups():
        packs = study.packs("baselines", group).values()
        assert all(len({run.cell for run in pack.members}) == 1 for pack in packs)
        # As many as asked for, where that parts no runs that share epochs.
        families = {run.without_cutoff.id for pack in packs for run in pack.members}
        assert len(packs) >= min(study.execution.workers, len(families))
        # Within a round, a longer job has the higher priority.
        by_priority = sorted(
            packs, key=lambda pack: study.priority(SimpleNamespace(round="baselines", group=group, id=pack.id))
        )
        epochs = [sum(run.epochs for run in pack.members) for pack in by_priority]
        assert epochs == sorted(epochs)
