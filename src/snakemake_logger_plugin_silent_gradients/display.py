"""Displays: a live view on a terminal, lines elsewhere."""

import re
import sys
import threading
import time
from typing import Any

from silent_study.progress.logs import without_run_names
from silent_study.words import duration

from .progress import Progress

# A line about a run in training: its place in the pack, method and seed, epoch, perhaps bits/dim, time left.
_NEWS = re.compile(r"\[([\d/]+)\] (.*): epoch (\d+ of \d+)(?:, ([\d.]+) bits/dim)?.*, about (.* left)")


class PlainDisplay:
    """Lines on the standard error stream, for log files and pipes."""

    shows_progress = False  # whether the progress is visible without lines about it

    def __init__(self, heartbeat: float = 20.0) -> None:  # seconds between lines about jobs
        self._heartbeat = heartbeat
        self._closed = threading.Event()

    def write(self, text: str, style: str) -> None:
        """Show a text of one or more lines in a style of rich ("" for none), which only a terminal shows."""
        print(text, file=sys.stderr, flush=True)

    def watch(self, progress: Progress) -> None:
        """Show this state from now on: a line for each pack in training at every heartbeat."""
        threading.Thread(target=self._beat, args=(progress,), daemon=True).start()

    def close(self) -> None:
        """Stop showing the state."""
        self._closed.set()

    def _beat(self, progress: Progress) -> None:
        while not self._closed.wait(self._heartbeat):
            for job in list(progress.running.values()):
                if line := without_run_names(job.newest_line):
                    self.write(f"  {job.name}, {duration(time.time() - job.started)}: {line}", "")


class TerminalDisplay(PlainDisplay):
    """Lines on the terminal, with the running jobs and the progress below them while a workflow runs."""

    shows_progress = True

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        # Imported here: rich loads slowly, and Snakemake imports this package at every start, also of its subprocesses.
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, no_color=None if colour else True, highlight=False)
        self._progress: Progress | None = None
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
        )

    def write(self, text: str, style: str) -> None:
        """Show a text above the live view."""
        from rich.text import Text

        self._console.print(Text(text, style=style), soft_wrap=True)

    def watch(self, progress: Progress) -> None:
        """Show the live view."""
        self._progress = progress
        self._live.start()

    def close(self) -> None:
        """Remove the live view."""
        self._live.stop()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        if self._progress is None:
            return Group()
        now = time.time()
        # A job is a line however narrow the window is: lines that wrap are not erased.
        training, others = Table.grid(padding=(0, 2, 0, 0)), Table.grid(padding=(0, 2, 0, 0))
        for table, wraps in ((training, (False, False, True, False, False, False)), (others, (False, False, True))):
            for wrap in wraps:  # rich narrows such a column alone
                table.add_column(no_wrap=not wrap)
        for job in list(self._progress.running.values()):
            name, line = Text(job.name, style="cyan"), without_run_names(job.newest_line)
            if found := _NEWS.match(line):
                place, run, epoch, bound, left = found.groups(default="")
                news, at = Text(run, no_wrap=True, overflow="ellipsis"), epoch.replace(" of ", "/")
                training.add_row(name, place, news, at, bound, Text(left, style="dim"))
            else:
                passed = Text(duration(now - job.started), style="dim")
                others.add_row(name, passed, Text(line, no_wrap=True, overflow="ellipsis"))
        failed = f", {len(self._progress.failed)} failed" if self._progress.failed else ""
        jobs = f"{self._progress.done}/{self._progress.total} jobs{failed}, {times(self._progress, now)}"
        done, total = self._progress.done, self._progress.total
        if self._progress.runs:
            done, total = self._progress.runs_done(), self._progress.runs
            jobs = f"{done}/{total} runs, {jobs}"
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total, done, width=16), jobs)
        return Group(training, others, bar)


def times(progress: Progress, now: float) -> str:
    """Return the time passed and the estimated time left."""
    left = progress.seconds_left(now)
    passed = f"{duration(now - progress.started)} so far"
    return f"{passed}, about {duration(left)} left" if left and progress.done < progress.total else passed
