"""Where the messages go: lines above a live view on a terminal, plain lines anywhere else."""

import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol

from silent_study.words import duration

from . import packs
from .progress import Progress

if TYPE_CHECKING:
    from rich.console import Group


class Display(Protocol):
    """Something that lines can be written to.

    Attributes:
        shows_progress: Whether the progress is in sight without lines that tell it.
    """

    shows_progress: bool

    def write(self, text: str, style: str) -> None:
        """Show a text, which may have several lines, in a style of rich ("" for none)."""

    def watch(self, progress: Progress) -> None:
        """From now on, show this state as it changes."""

    def close(self) -> None:
        """Stop watching."""


HEARTBEAT_SECONDS = 20.0
"""A run whose output is not a terminal tells as often what its jobs are at."""


class PlainDisplay:
    """Lines on the standard error stream, for log files and pipes."""

    shows_progress = False

    def __init__(self, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self._heartbeat = heartbeat
        self._closed = threading.Event()

    def write(self, text: str, style: str) -> None:
        """Show a text as it is."""
        print(text, file=sys.stderr, flush=True)

    def watch(self, progress: Progress) -> None:
        """Every now and then, a line for each pack in training."""
        threading.Thread(target=self._tell, args=(progress,), daemon=True).start()

    def close(self) -> None:
        """No more of these lines."""
        self._closed.set()

    def _tell(self, progress: Progress) -> None:
        while not self._closed.wait(self._heartbeat):
            for name, news, seconds in running_jobs(progress, time.time()):
                if news:
                    self.write(f"  {name}, {duration(seconds)}: {news}", "")


class TerminalDisplay:
    """Lines on the terminal, with the running jobs and the progress below them while a workflow runs."""

    shows_progress = True

    def __init__(self, *, colour: bool) -> None:
        # rich takes a while to load; Snakemake imports this package at every start, of its own helpers too.
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
        """Take the live view away."""
        self._live.stop()

    def _render(self) -> "Group":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        if self._progress is None:
            return Group()
        now = time.time()
        jobs = Table.grid(padding=(0, 2))
        for name, news, seconds in running_jobs(self._progress, now):
            jobs.add_row(Text(name, style="cyan"), Text(news), Text(duration(seconds), style="dim"))
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(self._progress.total, self._progress.done, width=30), summary(self._progress, now))
        return Group(jobs, bar)


def running_jobs(progress: Progress, now: float) -> list[tuple[str, str, float]]:
    """Name, latest news and seconds of each running job; the news are of packs only."""
    rows = []
    for job in list(progress.running.values()):
        news = packs.newest_line(job.log) if job.manifest and job.log else ""
        rows.append((job.name, news, now - job.started))
    return rows


def summary(progress: Progress, now: float) -> str:
    """Jobs done and failed, time passed, and a guess at the time left."""
    parts = [f"{progress.done}/{progress.total} jobs"]
    if progress.failed:
        parts.append(f"{len(progress.failed)} failed")
    return ", ".join([*parts, times(progress, now)])


def times(progress: Progress, now: float) -> str:
    """Time passed, and a guess at the time left."""
    left = progress.seconds_left(now)
    passed = f"{duration(now - progress.started)} so far"
    return f"{passed}, about {duration(left)} left" if left and progress.done < progress.total else passed
