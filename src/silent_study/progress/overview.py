"""What a plan will run, in words, and how long it takes where the device's pace was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from silent_study.jobs.pace import PACE, Pace
from silent_study.plan.plan import ROUNDS, Cell, Plan, SelectionMissingError
from silent_study.settings import RunSettings
from silent_study.store.packs import PackSpec, Round
from silent_study.store.runs import RunStore
from silent_study.words import counted


def overview(plan: Plan) -> str:
    """Packs and runs per cell, where a round's selections are made, and which of them are done; then hours per cell."""
    lines = [f"preset {plan.params.preset}, protocol {plan.params.protocol}, seeds {plan.params.seeds}"]
    known, store = _known_packs(plan), RunStore(plan.results / "store")
    to_train = False
    for round_ in ROUNDS:
        packs = [pack for (of, _), found in known.items() if of == round_ for pack in found]
        unknown = [cell for cell in plan.cells_of(round_) if (round_, cell.group) not in known]
        if packs or not unknown:
            done = [store.is_finished(run.name) for pack in packs for run in pack.members]
            asked = f"{counted(len(done), 'run')} in {counted(len(packs), 'pack')}"
            lines.append(f"{round_}: {asked}{_how_far(sum(done), len(done))}")
            to_train = to_train or not all(done)
        for cell, runs in _runs_by_cell(packs).items():
            lines.append(f"  {cell}: {counted(len(runs), 'run')} of {counted(runs[0].epochs, 'epoch')}")
        if unknown:
            most = sum(len(plan.possible_runs(cell, round_)) for cell in unknown)
            runs_at_most = counted(most, "more run" if packs else "run")
            lines.append(
                f"{round_}: at most {runs_at_most} in {counted(len(unknown), 'cell')}, once the rounds before it are "
                "selected"
            )
            to_train = True
    if not to_train:
        lines.append("nothing to train: every run is done")
    return "\n".join([*lines, *_hours(plan, known, to_train)])


def _how_far(done: int, runs: int) -> str:
    if done == runs:
        return ", all done" if runs else ""
    return f", {done} done, {runs - done} to be trained" if done else f", {runs} to be trained"


def _known_packs(plan: Plan) -> dict[tuple[Round, str], list[PackSpec]]:
    """The packs of every round of a group whose selections are made."""
    found = {}
    for group in plan.groups():
        for round_ in plan.rounds(group):
            try:
                found[round_, group] = plan.packs(round_, plan.selections(round_, group), group)
            except SelectionMissingError:
                break
    return found


def _runs_by_cell(packs: Iterable[PackSpec]) -> dict[str, list[RunSettings]]:
    cells: dict[str, list[RunSettings]] = {}
    for pack in packs:
        for run in pack.members:
            cells.setdefault(run.cell, []).append(run)
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


def _hours(plan: Plan, known: Mapping[tuple[Round, str], list[PackSpec]], to_train: bool) -> Iterator[str]:
    pace = Pace.read(plan.results / PACE, plan.params.sources)
    if pace is None:
        if to_train:
            yield "how long: not known before this device is measured: silent-gradients pace"
        return
    yield f"at most, on {pace.hardware} (torch {pace.torch}), one job at a time:"
    works = {cell.name: _work(plan, cell, pace, known) for cell in plan.cells()}
    for name, work in works.items():
        yield f"  {name}: {_in_words(work)}"
    total = _Work(sum(work.trainings for work in works.values()), sum(work.done for work in works.values()))
    for work in works.values():
        total.add(work.seconds)
    yield f"in all: {_in_words(total)}"


def _in_words(work: _Work) -> str:
    time = "not measured; silent-gradients pace" if work.seconds is None else f"{work.seconds / 3600:.2f} hours"
    done = f" ({work.done} more are done)" if work.done else ""
    return f"{counted(work.trainings, 'training')}{done}, {time}"


def _work(plan: Plan, cell: Cell, pace: Pace, known: Mapping[tuple[Round, str], list[PackSpec]]) -> _Work:
    store, work, counted = RunStore(plan.results / "store"), _Work(), set[str]()
    asked = plan.params.evaluation.resolved()
    for round_ in ROUNDS:
        if cell not in plan.cells_of(round_):
            continue
        packs = known.get((round_, cell.group))
        possible = (
            plan.possible_runs(cell, round_)
            if packs is None
            else [[run] for run in _runs_by_cell(packs).get(cell.name, ())]
        )
        for candidates in possible:
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
