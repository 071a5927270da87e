"""What Snakemake tells its users while this workflow runs: a line per finished job, and every warning and error."""

import logging
import os
import re
import sys
import time
from logging import LogRecord
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from silent_study.words import duration

from . import packs
from .display import Display, PlainDisplay, TerminalDisplay, times
from .progress import Job, Progress

_LOG_LINES = 20

# Messages that carry no event to tell them by and say what is always so or what the display shows better.
_NOISE = (
    "Assuming unrestricted shared filesystem usage",
    "Building DAG of jobs",
    "Using shell: ",
    "Conda environments: ignored",
    "Singularity containers: ignored",
    "Select jobs to execute",
    "DAG of jobs will be updated after completion",
    "Updating checkpoint dependencies",
    "Elapsed time: ",
)
# Errors that say all of what is wrong; where in the workflow's code they came from does not help.
_WHOLE = frozenset({"SettingsError", "DataError", "StoreError"})
# What a shell command ended with; its text, which has the whole pack in it, is in .snakemake/log.
_EXIT_STATUS = re.compile(
    r"^Command '.*' (returned non-zero exit status \d+|died with <Signals\.\w+: \d+>)\.", re.DOTALL | re.MULTILINE
)
_JOBS_FAILED = "At least one job did not complete successfully."
_LEFT_LOCK = "removed with the --unlock argument"
_NOISY_EVENTS = frozenset(
    {LogEvent.WORKFLOW_STARTED, LogEvent.RESOURCES_INFO, LogEvent.JOB_STARTED, LogEvent.GROUP_INFO, LogEvent.RULEGRAPH}
)


class LogHandler(LogHandlerBase):
    """Takes the place of Snakemake's own output.

    Nothing is lost by it: dry runs, --verbose and --debug-dag are shown by Snakemake's own handler, what Snakemake
    says of other matters (--lint, --unlock, --report ...) is shown in its own words, and .snakemake/log has every
    message.
    """

    def __post_init__(self) -> None:
        """Choose between Snakemake's own handler, the terminal and plain lines."""
        settings = self.common_settings
        self._quiet = frozenset(settings.quiet or ())
        self._own_formatter = DefaultFormatter(self._quiet, settings.show_failed_logs)
        self._own_filter = DefaultFilter(
            self._quiet, settings.debug_dag, settings.verbose, settings.dryrun, settings.printshellcmds
        )
        self._original: ColorizingTextHandler | None = None
        if settings.dryrun or settings.verbose or settings.debug_dag:
            self._original = ColorizingTextHandler(
                nocolor=settings.nocolor,
                stream=sys.stdout if settings.stdout else sys.stderr,
                formatter=self._own_formatter,
                filter=self._own_filter,
            )
        self._display: Display
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._display = TerminalDisplay(colour=not settings.nocolor)
        else:
            self._display = PlainDisplay()
        self._progress: Progress | None = None
        self._news: list[str] = []
        self._ended = ""

    def emit(self, record: LogRecord) -> None:
        """Show a message, or learn from it."""
        # An exception would end the thread that all messages come through, and with it the errors still to come.
        try:
            if self._original is not None:
                self._original.handle(record)
            else:
                self._route(record)
        except Exception:  # noqa: BLE001
            self.handleError(record)

    def close(self) -> None:
        """Say how the run ended, and leave the terminal as it was."""
        if self._progress is not None:
            self._display.close()
            self._tell_news(self._progress)
            if self._tells_progress:
                self._tell_end(self._progress)
            self._progress = None
        super().close()

    def _route(self, record: Any) -> None:
        event = getattr(record, "event", None)
        progress = self._progress
        if event == LogEvent.RUN_INFO:
            self._begin(record)
        elif event == LogEvent.JOB_INFO and progress is not None:
            progress.start(record.jobid, _job(record))
        elif event == LogEvent.JOB_FINISHED and progress is not None:
            self._finish(progress, record.job_id)
        elif event == LogEvent.PROGRESS and progress is not None:
            progress.done, progress.total = record.done, record.total
            self._tell_news(progress)
        elif event == LogEvent.JOB_ERROR and progress is not None:
            self._fail(progress, record)
        elif record.levelno >= logging.ERROR:
            text = self._own_formatter.format(record)
            if getattr(record, "exception", None) in _WHOLE:
                text = _without_places(text)
            if progress is not None and (ended := _EXIT_STATUS.search(text)):
                self._ended = ended[1]  # told with the job, whose failure is the next message
                return
            if progress is not None and _JOBS_FAILED in text:
                return
            if _LEFT_LOCK in text:
                text += "\nIf none is running, this clears the lock: snakemake --unlock"
            self._display.write(text, "bold red")
        elif event not in _NOISY_EVENTS and self._own_filter.filter(record):
            text = self._own_formatter.format(record)
            if text and text != "None" and not (record.levelno == logging.INFO and text.startswith(_NOISE)):
                self._display.write(text, "yellow" if record.levelno == logging.WARNING else "")

    @property
    def _tells_progress(self) -> bool:
        return self._quiet.isdisjoint({Quietness.PROGRESS, Quietness.ALL})

    def _begin(self, record: Any) -> None:
        rules = {rule: number for rule, number in record.stats.items() if rule != "total"}
        self._progress = Progress(started=time.time())
        self._progress.plan(rules)
        if self._tells_progress:
            counts = ", ".join(f"{number} {rule}" for rule, number in rules.items())
            self._display.write(f"{self._progress.total} jobs: {counts}", "bold")
            self._display.watch(self._progress)

    def _finish(self, progress: Progress, number: int) -> None:
        now = time.time()
        job = progress.finish(number, now)
        if job is None:
            self._news.append(f"job {number}")
            return
        line = job.name
        if job.manifest is not None:
            try:
                line += f": {packs.describe(job.manifest)}"
            except (OSError, ValueError, KeyError) as error:
                line += f": finished, but its results cannot be read ({error!r})"
        if job.outputs:
            line += f", {duration(now - job.started)}"
        self._news.append(line)

    def _tell_news(self, progress: Progress) -> None:
        """Show what has finished, now that Snakemake has said how many that makes."""
        if self._tells_progress:
            ending = "" if self._display.shows_progress else f" ({times(progress, time.time())})"
            for line in self._news:
                self._display.write(f"[{progress.done}/{progress.total}] {line}{ending}", "")
        self._news.clear()

    def _tell_end(self, progress: Progress) -> None:
        ends = {"stopped": len(progress.stopped), "failed": len(progress.failed - progress.stopped)}
        failed = "".join(f", {count} {how}" for how, count in ends.items() if count)
        passed = duration(time.time() - progress.started)
        style = "bold red" if failed else "bold green"
        self._display.write(f"{progress.done} of {progress.total} jobs done{failed}, in {passed}", style)

    def _fail(self, progress: Progress, record: Any) -> None:
        job = progress.fail(record.jobid) or _job(record)
        if any(packs.newest_line(Path(log)).startswith("stopped") for log in record.log):
            progress.stopped.add(record.jobid)
            self._ended = ""
            self._display.write(f"stopped {job.name}; the same command goes on", "yellow")
            return
        lines = [f"FAILED {job.name} (rule {job.rule}, job {record.jobid})"]
        if record.rule_msg:
            lines.append(f"  {record.rule_msg}")
        if self._ended:
            lines.append(f"  its command {self._ended}")
            self._ended = ""
        lines += [f"  {key}: {value}" for key, value in record.aux.items()]
        for log in record.log:
            lines += _tail(Path(log))
        if record.shellcmd and not record.log:
            lines.append(f"  command: {record.shellcmd.strip()}")
        self._display.write("\n".join(lines), "red")

    @property
    def writes_to_stream(self) -> bool:
        """It takes the place of Snakemake's own output."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Snakemake writes .snakemake/log itself."""
        return False

    @property
    def has_filter(self) -> bool:
        """Errors come through whatever is to be quiet, and the display learns from messages that it does not show."""
        return True

    @property
    def has_formatter(self) -> bool:
        """The wording is this package's own."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """The order of the rules is not shown."""
        return False


def _job(record: Any) -> Job:
    return Job(
        rule=record.rule_name,
        wildcards=tuple(map(str, getattr(record, "wildcards", {}).values())),
        outputs=tuple(map(Path, record.output)),
        started=time.time(),
        log=next(map(Path, getattr(record, "log", None) or ()), None),
    )


def _without_places(text: str) -> str:
    """What an error says without the lines on the code that raised it."""
    first, *lines = text.splitlines()
    kept = [line for line in lines if not line.startswith('  File "')]
    return "\n".join(kept if " in file " in first and kept else [first, *kept])


def _tail(log: Path) -> list[str]:
    """The end of a job's log, or why there is none."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return [f"  log: {log} ({error.strerror})"]
    if not lines:
        return [f"  log: {log} (empty)"]
    heading = f"  log: {log}" + (f", last {_LOG_LINES} of {len(lines)} lines:" if len(lines) > _LOG_LINES else ":")
    return [heading, *(f"    {line}" for line in lines[-_LOG_LINES:])]
