"""List what a plan trains and, where the device's pace was measured, how long that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from silent_study.jobs.pace import PACE, Pace
from silent_study.plan.plan import ROUNDS, Plan, Training
from silent_study.settings import RunSettings
from silent_study.store.runs import RunStore
from silent_study.words import counted


def overview(plan: Plan) -> str:
    """Return runs and packs by round and cell, how many runs are done, and hours by cell."""
    lines = [f"preset {plan.params.preset}, protocol {plan.params.protocol}, seeds {plan.params.seeds}"]
    store, trainings, to_train = RunStore(plan.results / "store"), list(plan.trainings()), False
    for round_ in ROUNDS:
        known = [each for each in trainings if each.round == round_ and each.known]
        unknown = Counter(each.cell for each in trainings if each.round == round_ and not each.known)
        if known or not unknown:
            packs = sum(len(plan.known_packs(round_, group) or ()) for group in plan.groups())
            done = sum(store.is_finished(each.candidates[0].name) for each in known)
            lines.append(
                f"{round_}: {counted(len(known), 'run')} in {counted(packs, 'pack')}{_how_far(done, len(known))}"
            )
            to_train = to_train or done < len(known)
        for cell, runs in Counter(each.cell for each in known).items():
            epochs = next(each.candidates[0].epochs for each in known if each.cell == cell)
            lines.append(f"  {cell}: {counted(runs, 'run')} of {counted(epochs, 'epoch')}")
        if unknown:
            runs_at_most = counted(unknown.total(), "more run" if known else "run")
            cells = counted(len(unknown), "cell")
            lines.append(f"{round_}: at most {runs_at_most} in {cells}, once the rounds before it are selected")
            to_train = True
    if not to_train:
        lines.append("nothing to train: every run is done")
    return "\n".join([*lines, *_hours(plan, trainings, to_train)])


def _how_far(done: int, runs: int) -> str:
    if done == runs:
        return ", all done" if runs else ""
    return f", {done} done, {runs - done} to be trained" if done else f", {runs} to be trained"


@dataclass
class _Work:
    """An upper bound of a cell's work: trainings that the store lacks, and their seconds with all evaluations."""

    trainings: int = 0
    done: int = 0
    seconds: float | None = 0.0

    def add(self, seconds: float | None) -> None:
        """Add seconds; the sum is unknown where a part was not measured."""
        self.seconds = None if self.seconds is None or seconds is None else self.seconds + seconds

    def __str__(self) -> str:
        time = "not measured; silent-gradients pace" if self.seconds is None else f"{self.seconds / 3600:.2f} hours"
        done = f" ({self.done} more are done)" if self.done else ""
        return f"{counted(self.trainings, 'training')}{done}, {time}"


def _hours(plan: Plan, trainings: Iterable[Training], to_train: bool) -> Iterator[str]:
    pace = Pace.read(plan.results / PACE, plan.params.sources)
    if pace is None:
        if to_train:
            yield "how long: not known before this device is measured: silent-gradients pace"
        return
    store, total = RunStore(plan.results / "store"), _Work()
    works = {cell.name: _Work() for cell in plan.cells()}
    evaluation = plan.params.evaluation.resolved()
    for each in trainings:
        work = works[each.cell]
        if not each.repeated:
            if all(store.is_finished(run.name) for run in each.candidates):
                work.done += 1
            else:
                work.trainings += 1
                work.add(longest(each.candidates, pace.training))
        if each.round == "seeds":
            work.add(longest(each.candidates, lambda run: pace.evaluation(run, evaluation)))
    yield f"at most, on {pace.hardware} (torch {pace.torch}), one job at a time:"
    for name, work in works.items():
        total.trainings, total.done = total.trainings + work.trainings, total.done + work.done
        total.add(work.seconds)
        yield f"  {name}: {work}"
    yield f"in all: {total}"


def longest(runs: Sequence[RunSettings], seconds: Callable[[RunSettings], float | None]) -> float | None:
    """Return the longest time of any of the runs; None where one is not known."""
    known = [found for run in runs if (found := seconds(run)) is not None]
    return max(known) if len(known) == len(runs) else None
