"""What a plan trains, and how long that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from silent_study.jobs.pace import PACE, Pace
from silent_study.plan.plan import ROUNDS, Plan, Training
from silent_study.settings import RunSettings
from silent_study.store.packs import Round
from silent_study.store.stale import stale_message, stale_runs
from silent_study.words import counted, duration


def overview(plan: Plan) -> str:
    """Return runs and packs by round and cell, how many runs are done, and the time of each cell."""
    lines = [f"preset {plan.params.preset}, protocol {plan.params.protocol}, seeds {plan.params.seeds}"]
    store, trainings, to_train = plan.store, list(plan.trainings()), 0
    to_come = at_most(trainings)
    for round_ in ROUNDS:
        known = [each.candidates[0] for each in trainings if each.round == round_ and each.known]
        waiting = [runs for (of, _), runs in to_come.items() if of == round_]
        if known or not waiting:
            packs = sum(len(plan.known_packs(round_, group) or ()) for group in plan.groups())
            done = sum(store.is_finished(run.name) for run in known)
            how_many = f"{counted(len(known), 'run')} in {counted(packs, 'pack')}"
            lines.append(f"{round_}: {how_many}{_how_far(done, len(known))}")
            to_train += len(known) - done
        for (cell, epochs), runs in Counter((run.cell, run.epochs) for run in known).items():
            lines.append(f"  {cell}: {counted(runs, 'run')} of {counted(epochs, 'epoch')}")
        if waiting:
            more = counted(sum(waiting), "more run" if known else "run")
            cells = counted(len(waiting), "cell")
            lines.append(f"{round_}: at most {more} in {cells}, once the rounds before it are selected")
            to_train += sum(waiting)
    if not to_train:
        lines.append("nothing to train: every run is done")
    stale = stale_message(stale_runs(store, plan.all_known_packs()))
    return "\n".join([*lines, *([stale] if stale else []), *_hours(plan, trainings, to_train > 0)])


def at_most(trainings: Iterable[Training]) -> Counter[tuple[Round, str]]:
    """Count the runs that wait for a selection, at most, by round and cell."""
    counts = Counter[tuple[Round, str]]()
    for each in trainings:
        if not each.known:
            counts[each.round, each.cell] += each.count
    return counts


def _how_far(done: int, runs: int) -> str:
    if done == runs:
        return ", all done" if runs else ""
    return f", {done} done, {runs - done} to be trained" if done else f", {runs} to be trained"


def _hours(plan: Plan, trainings: Iterable[Training], to_train: bool) -> Iterator[str]:
    """Yield upper bounds of each cell's work: the trainings that the store lacks, and their hours with evaluations."""
    pace = Pace.read(plan.results / PACE, plan.params.sources)
    if not pace.steps:
        if to_train:
            yield "how long: not known before this device is measured: silent-gradients pace"
        return
    store, evaluation = plan.store, plan.params.evaluation.resolved()
    left, done = Counter[str](), Counter[str]()
    seconds: dict[str, list[float | None]] = {cell.name: [] for cell in plan.cells()}
    for each in trainings:
        if not each.repeated:
            if each.known and store.is_finished(each.candidates[0].name):
                done[each.cell] += each.count
            else:
                left[each.cell] += each.count
                seconds[each.cell] += [longest(each.candidates, pace.training)] * each.count
        if each.round == "seeds":
            evaluated = longest(each.candidates, lambda run: pace.evaluation(run, evaluation))
            seconds[each.cell] += [evaluated] * each.count
    yield f"at most, on {pace.hardware} (torch {pace.torch}), one job at a time:"
    for cell, own in seconds.items():
        yield f"  {cell}: {_work(left[cell], done[cell], own)}"
    yield f"in all: {_work(left.total(), done.total(), [each for own in seconds.values() for each in own])}"


def _work(trainings: int, done: int, seconds: Sequence[float | None]) -> str:
    known = [each for each in seconds if each is not None]
    time = duration(sum(known)) if len(known) == len(seconds) else "not measured; silent-gradients pace"
    return f"{counted(trainings, 'training')}{f' ({done} more are done)' if done else ''}, {time}"


def longest(runs: Sequence[RunSettings], seconds: Callable[[RunSettings], float | None]) -> float | None:
    """Return the longest time of any of the runs; None where one is not known."""
    known = [found for run in runs if (found := seconds(run)) is not None]
    return max(known) if len(known) == len(runs) else None
