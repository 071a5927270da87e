"""What a plan will run, in words, and how long it takes where the device's pace was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from silent_gradients.pace import PACE, Pace
from silent_gradients.packs import PackSpec, Round
from silent_gradients.runs import ROUNDS, Cell, Plan, SelectionMissingError
from silent_gradients.settings import RunSettings
from silent_gradients.store import RunStore


def overview(plan: Plan) -> str:
    """Packs and runs per cell, for every round whose selections are made; then hours per cell."""
    lines = [f"preset {plan.params.preset}, protocol {plan.params.protocol}, seeds {plan.params.seeds}"]
    for round_ in ROUNDS:
        try:
            packs = plan.packs(round_, plan.selections(round_))
        except SelectionMissingError:
            cells = plan.cells_of(round_)
            most = sum(len(plan.possible_runs(cell, round_)) for cell in cells)
            lines.append(f"{round_}: at most {most} runs in {len(cells)} cells, once the rounds before it are selected")
            continue
        lines.append(f"{round_}: {sum(len(pack.members) for pack in packs)} runs in {len(packs)} packs")
        lines += [
            f"  {cell}: {len(epochs)} runs of {epochs[0]} epochs" for cell, epochs in _epochs_by_cell(packs).items()
        ]
    return "\n".join([*lines, *_hours(plan)])


def _epochs_by_cell(packs: list[PackSpec]) -> dict[str, list[int]]:
    cells: dict[str, list[int]] = {}
    for pack in packs:
        for run in pack.members:
            cells.setdefault(run.cell, []).append(run.epochs)
    return cells


@dataclass
class _Work:
    """What a cell will come to at most: trainings that the store lacks, and seconds of these and of evaluations."""

    trainings: int = 0
    done: int = 0
    seconds: float | None = 0.0

    def add(self, seconds: float | None) -> None:
        """Count some time; what was not measured makes the whole unknown."""
        self.seconds = None if self.seconds is None or seconds is None else self.seconds + seconds


def _hours(plan: Plan) -> Iterator[str]:
    pace = Pace.read(plan.results / PACE)
    if pace is None:
        yield "how long: not known before this device is measured: silent-gradients pace"
        return
    yield f"at most, on {pace.hardware} (torch {pace.torch}), one job at a time:"
    selected = _selected_runs(plan)
    works = {cell.name: _work(plan, cell, pace, selected) for cell in plan.cells()}
    for name, work in works.items():
        yield f"  {name}: {_in_words(work)}"
    total = _Work(sum(work.trainings for work in works.values()), sum(work.done for work in works.values()))
    for work in works.values():
        total.add(work.seconds)
    yield f"in all: {_in_words(total)}"


def _in_words(work: _Work) -> str:
    time = "not measured; silent-gradients pace" if work.seconds is None else f"{work.seconds / 3600:.2f} hours"
    done = f" ({work.done} more are done)" if work.done else ""
    return f"{work.trainings} trainings{done}, {time}"


def _selected_runs(plan: Plan) -> dict[Round, dict[str, list[list[RunSettings]]]]:
    """The runs by cell of every round whose selections are made, in the form of ``Plan.possible_runs``."""
    found: dict[Round, dict[str, list[list[RunSettings]]]] = {}
    for round_ in ROUNDS:
        try:
            packs = plan.packs(round_, plan.selections(round_))
        except SelectionMissingError:
            break
        cells = found.setdefault(round_, {})
        for pack in packs:
            for run in pack.members:
                cells.setdefault(run.cell, []).append([run])
    return found


def _work(plan: Plan, cell: Cell, pace: Pace, selected: Mapping[Round, Mapping[str, list[list[RunSettings]]]]) -> _Work:
    store, work, counted = RunStore(plan.results / "store"), _Work(), set[str]()
    asked = plan.params.evaluation.resolved()
    for round_ in ROUNDS:
        if cell not in plan.cells_of(round_):
            continue
        known = selected.get(round_)
        for candidates in plan.possible_runs(cell, round_) if known is None else known.get(cell.name, ()):
            # A seed's run may be one of the grid's, whichever point is selected.
            if not all(run.name in counted for run in candidates):
                if all(store.is_finished(run.name) for run in candidates):
                    work.done += 1
                else:
                    work.trainings += 1
                    work.add(_longest(candidates, pace.training))
                counted.update(run.name for run in candidates)
            if round_ == "seeds":
                work.add(_longest(candidates, lambda run: pace.evaluation(run, asked)))
    return work


def _longest(runs: list[RunSettings], seconds: Callable[[RunSettings], float | None]) -> float | None:
    known = [found for run in runs if (found := seconds(run)) is not None]
    return max(known) if len(known) == len(runs) else None
