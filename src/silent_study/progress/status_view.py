"""Show that as lines and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from silent_study.progress.logs import point_in, without_run_names
from silent_study.progress.status import JobStatus, RunStatus, Status
from silent_study.words import counted, duration

QUIET_SECONDS = 120.0
"""Age of progress.json from which a run in training is marked."""


def view(status: Status, *, every_cell: bool = False) -> RenderableType:
    """Return a status as lines and tables; ``every_cell`` also of groups whose runs are all done or to come."""
    parts: list[RenderableType] = [Text(_summary(status), style="bold"), Text(_hours(status))]
    if running := [run for run in status.runs.values() if run.state == "running"]:
        parts += [Text(), _running(running)]
    in_training = {run.name for run in running}
    for job in status.jobs:
        if job.state == "running" and in_training.isdisjoint(job.runs):
            parts.append(Text(f"{job.title}: {job.news or 'starting'}", style="cyan"))
    if status.stale:
        parts.append(Text(f"\n{status.stale}", style="bold red"))
    for failure in status.failures:
        parts.append(Text(f"\nFAILED {failure.job}: {failure.error}\n  log: {failure.log}", style="bold red"))
    for job in status.jobs:
        if job.state == "stopped":
            parts.append(Text(f"\nstopped {job.title}: {_reason(job)}", style="yellow"))
    return Group(*parts, Text(), _cells(status, every_cell))


def _reason(job: JobStatus) -> str:
    if job.log is None:
        return "its log is not here; the workflow continues it"
    why = job.news if job.news.startswith("stopped") else f"its process is gone; last line: {job.news or 'none'}"
    return f"{why}\n  log: {job.log}"


def _summary(status: Status) -> str:
    count = status.count()
    ended = count["finished"] + count["diverged"]
    parts = [f"{ended} of {counted(len(status.runs), 'run')} done"]
    parts += [f"{count[state]} {state}" for state in ("diverged", "running", "stopped", "planned") if count[state]]
    if more := sum(status.to_come.values()):
        parts.append(f"at most {more} more once a point is selected")
    parts.append("the report is up to date" if status.report else "the report is to come")
    return f"preset {status.preset}, protocol {status.protocol}: {', '.join(parts)}"


def _hours(status: Status) -> str:
    if status.left_hours is None:
        left = "left: not known before a run of each group is trained, or the device measured (silent-gradients pace)"
    else:
        left = f"about {duration(3600 * status.left_hours)} left" if status.left_hours else "nothing left"
    return f"training, one job at a time: {duration(3600 * status.spent_hours)} spent, {left}"


def _running(runs: Sequence[RunStatus]) -> Table:
    table = _table("running", "epoch", "bits/dim", "images/s", "left", "saved")
    table.add_column("settings")
    for run in runs:
        quiet = run.silent_for is not None and run.silent_for > QUIET_SECONDS
        table.add_row(
            _cut(without_run_names(run.name), "yellow" if quiet else "cyan"),
            f"{run.epoch}/{run.epochs}",
            "-" if run.bpd is None else f"{run.bpd:.4f}",
            "-" if run.images_per_second is None else f"{run.images_per_second:,.0f}",
            "-" if run.seconds_left is None else duration(run.seconds_left),
            "not yet" if run.checkpoint_age is None else f"{duration(run.checkpoint_age)} ago",
            _cut(point_in(run.name), "dim"),
        )
        if quiet and run.silent_for is not None:
            table.add_row(_cut(f"  no progress written for {duration(run.silent_for)}", "yellow"))
    return table


def _cells(status: Status, every_cell: bool) -> Table:
    rows: list[tuple[str | Text, ...]] = []
    groups: dict[str, dict[str, list[RunStatus]]] = {}
    for (round_, cell), runs in status.by_cell().items():
        groups.setdefault(f"{round_} {cell.rpartition('/')[0]}", {})[cell.rpartition("/")[2]] = runs
    for group, cells in groups.items():
        everything = [run for runs in cells.values() for run in runs]
        rows.append((_cut(group, "bold"), *_numbers(everything)))
        ended = sum(run.ended for run in everything)
        if every_cell or any(run.state in ("running", "stopped") for run in everything) or 0 < ended < len(everything):
            rows += [(_cut(f"  {cell}"), *_numbers(runs)) for cell, runs in cells.items()]
    more: Counter[str] = Counter()
    for (round_, cell), runs_at_most in status.to_come.items():
        more[f"{round_} {cell.rpartition('/')[0]}"] += runs_at_most
    for group, runs_at_most in more.items():
        rows.append((_cut(group, "bold"), "", "", "", "", f"<= {runs_at_most}", ""))
    headings = ("", "done", "diverged", "running", "stopped", "planned", "best bits/dim")
    used = [column for column in range(len(headings)) if any(row[column] for row in rows)] or [0]
    table = _table(*(headings[column] for column in used))
    for row in rows:
        table.add_row(*(row[column] for column in used))
    return table


def _numbers(runs: Sequence[RunStatus]) -> Iterator[str | Text]:
    count = Counter(run.state for run in runs)
    done = count["finished"] + count["diverged"]
    yield Text(f"{done}/{len(runs)}", style="green" if done == len(runs) else "")
    for state, style in (("diverged", "red"), ("running", "cyan"), ("stopped", "yellow"), ("planned", "")):
        yield Text(str(count[state]), style=style) if count[state] else ""  # type: ignore[index]
    bounds = [run.bpd for run in runs if run.state == "finished" and run.bpd is not None]
    yield f"{min(bounds):.4f}" if bounds else ""


def _cut(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(first)  # rich narrows columns that may wrap before those of numbers
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
