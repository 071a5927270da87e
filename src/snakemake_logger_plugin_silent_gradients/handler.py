"""A line per finished job, every warning and error."""

import logging
import os
import re
import sys
import time
from collections import Counter
from logging import LogRecord
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from silent_study.progress.logs import last_line
from silent_study.words import duration

from .display import PlainDisplay, TerminalDisplay, times
from .progress import Job, Progress, pack_results

_LOG_LINES = 20

# Beginnings of messages without an event that are always the same or that the display shows better.
_OMITTED = (
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
# Errors whose message is complete; their place in the workflow's code does not help. An input function wraps them.
_COMPLETE_ERRORS = frozenset({"SettingsError", "DataError", "StoreError"})
_WRAPPED_ERROR = re.compile(
    rf"^Error:\n  (?:{'|'.join(_COMPLETE_ERRORS)}): (.*?)\nWildcards:", re.DOTALL | re.MULTILINE
)
# How a shell command ended; the command, which contains the whole pack, is in .snakemake/log.
_EXIT_STATUS = re.compile(
    r"^Command '.*' (returned non-zero exit status \d+|died with <Signals\.\w+: \d+>)\.", re.DOTALL | re.MULTILINE
)
# SIGHUP, SIGINT or SIGTERM.
_SIGNALLED = re.compile(r"<Signals\.SIG(HUP|INT|TERM)|status (129|130|143)$")
_OMITTED_EVENTS = frozenset(
    {LogEvent.WORKFLOW_STARTED, LogEvent.RESOURCES_INFO, LogEvent.JOB_STARTED, LogEvent.GROUP_INFO, LogEvent.RULEGRAPH}
)


class LogHandler(LogHandlerBase):
    """Handler in the place of Snakemake's own output.

    Snakemake's own handler shows dry runs, --verbose and --debug-dag. Other messages (--lint, --unlock, --report ...)
    are shown unchanged, and .snakemake/log has every message.
    """

    writes_to_stream = True  # in the place of Snakemake's own output
    writes_to_file = False  # Snakemake writes .snakemake/log itself
    has_filter = True  # errors are shown despite --quiet, and hidden messages update the progress
    has_formatter = True  # with wording of its own
    needs_rulegraph = False  # the order of the rules is not shown

    def __post_init__(self) -> None:
        """Choose between Snakemake's own handler, the terminal and plain lines."""
        settings = self.common_settings
        quiet = frozenset(settings.quiet or ())
        self._shows_progress = quiet.isdisjoint({Quietness.PROGRESS, Quietness.ALL})
        self._own_formatter = DefaultFormatter(quiet, settings.show_failed_logs)
        self._own_filter = DefaultFilter(
            quiet, settings.debug_dag, settings.verbose, settings.dryrun, settings.printshellcmds
        )
        self._original: ColorizingTextHandler | None = None
        self._details = settings.verbose or settings.debug_dag
        if settings.dryrun or self._details:
            self._original = ColorizingTextHandler(
                nocolor=settings.nocolor,
                stream=sys.stdout if settings.stdout else sys.stderr,
                formatter=self._own_formatter,
                filter=self._own_filter,
            )
        on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._display = TerminalDisplay(colour=not settings.nocolor) if on_terminal else PlainDisplay()
        self._progress: Progress | None = None
        self._finished: list[str] = []
        self._result = ""  # of the study, in a line
        self._ended = ""
        self._last = ""  # message, of those without an event; Snakemake repeats some

    def emit(self, record: LogRecord) -> None:
        """Show a message, or update the progress."""
        # An exception would end the thread of all messages, and later errors would not be shown.
        try:
            if self._original is None:
                self._route(record)
            elif not self._details and (complaint := self._complaint(record)):
                self._display.write(complaint, "bold red")
            else:
                self._original.handle(record)
        except Exception:  # noqa: BLE001
            self.handleError(record)

    def close(self) -> None:
        """Show how the run ended, and restore the terminal."""
        if self._progress is not None:
            self._display.close()
            self._show_finished(self._progress)
            if self._shows_progress:
                self._show_end(self._progress)
            self._progress = None
        super().close()

    def _route(self, record: Any) -> None:
        event = getattr(record, "event", None)
        progress = self._progress
        if progress is not None and hasattr(record, "planned_runs"):  # of silent_study.workflow.prepare_start
            progress.trained, progress.runs = set(record.trained_runs), record.planned_runs
        if event == LogEvent.RUN_INFO:
            self._begin(record)
        elif event == LogEvent.JOB_INFO and progress is not None:
            progress.running[record.jobid] = _job(record)
        elif event == LogEvent.JOB_FINISHED and progress is not None:
            self._finish(progress, record.job_id)
        elif event == LogEvent.PROGRESS and progress is not None:
            progress.done, progress.total = record.done, record.total
            self._show_finished(progress)
        elif event == LogEvent.JOB_ERROR and progress is not None:
            self._fail(progress, record)
        elif record.levelno >= logging.ERROR:
            text = self._complaint(record) or self._own_formatter.format(record)
            if progress is not None and (ended := _EXIT_STATUS.search(text)):
                self._ended = ended[1]  # shown with the failure of the job, the next message
                return
            if progress is not None and "At least one job did not complete successfully." in text:
                return
            if "removed with the --unlock argument" in text:
                text += "\nIf none is running, this clears the lock: snakemake --unlock"
            self._display.write(text, "bold red")
        elif event not in _OMITTED_EVENTS and self._own_filter.filter(record):
            text = self._own_formatter.format(record)
            shown = text not in ("", "None", self._last)
            self._last = text
            if shown and not (record.levelno == logging.INFO and text.startswith(_OMITTED)):
                self._display.write(text, "yellow" if record.levelno == logging.WARNING else "")

    def _complaint(self, record: Any) -> str | None:
        """Return an error with a complete message, without the places in the code; None for any other message."""
        if record.levelno < logging.ERROR:
            return None
        text = self._own_formatter.format(record)
        if getattr(record, "exception", None) in _COMPLETE_ERRORS:
            return _without_places(text)
        return wrapped[1] if (wrapped := _WRAPPED_ERROR.search(text)) else None

    def _begin(self, record: Any) -> None:
        rules = Counter({rule: number for rule, number in record.stats.items() if rule != "total"})
        self._progress = Progress(started=time.time(), planned=rules, total=rules.total())
        if self._shows_progress:
            counts = ", ".join(f"{number} {rule}" for rule, number in rules.items())
            self._display.write(f"{self._progress.total} jobs: {counts}", "bold")
            self._display.watch(self._progress)

    def _finish(self, progress: Progress, number: int) -> None:
        now = time.time()
        job = progress.finish(number, now)
        if job is None:
            self._finished.append(f"job {number}")
            return
        results = ""
        if job.manifest is not None:
            try:
                results = f": {pack_results(job.manifest)}"
            except (OSError, ValueError, KeyError) as error:
                results = f": finished, but its results cannot be read ({error!r})"
        if job.rule == "gather" and job.log is not None:
            self._result = last_line(job.log)
        self._finished.append(f"{job.name}{results}{f', {duration(job.seconds(now))}' if job.outputs else ''}")

    def _show_finished(self, progress: Progress) -> None:
        """Show the finished jobs, once Snakemake has sent their number."""
        if self._shows_progress:
            ending = "" if self._display.shows_progress else f" ({times(progress, time.time())})"
            for line in self._finished:
                self._display.write(f"[{progress.done}/{progress.total}] {line}{ending}", "")
        self._finished.clear()

    def _show_end(self, progress: Progress) -> None:
        ends = {"stopped": progress.stopped, "failed": progress.failed - progress.stopped}
        failed = "".join(f", {len(jobs)} {how}" for how, jobs in ends.items() if jobs)
        passed = duration(time.time() - progress.started)
        style = "bold red" if failed else "bold green"
        self._display.write(f"{progress.done} of {progress.total} jobs done{failed}, in {passed}", style)
        if self._result and not failed:
            self._display.write(self._result, "bold")

    def _fail(self, progress: Progress, record: Any) -> None:
        job = progress.fail(record.jobid) or _job(record)
        # A signal may come before the job has an answer to it.
        stopped = any(last_line(Path(log)).startswith("stopped") for log in record.log)
        if stopped or _SIGNALLED.search(self._ended):
            progress.stopped.add(record.jobid)
            self._ended = ""
            self._display.write(f"stopped {job.name}; the same command goes on", "yellow")
            return
        about = [record.rule_msg, self._ended and f"its command {self._ended}"]
        about += [f"{key}: {value}" for key, value in record.aux.items()]
        about += [f"command: {record.shellcmd.strip()}"] if record.shellcmd and not record.log else []
        lines = [f"FAILED {job.name} (rule {job.rule}, job {record.jobid})", *(f"  {line}" for line in about if line)]
        lines += [line for log in record.log for line in _tail(Path(log))]
        self._ended = ""
        self._display.write("\n".join(lines), "red")


def _job(record: Any) -> Job:
    return Job(
        rule=record.rule_name,
        wildcards=tuple(str(value) for name, value in getattr(record, "wildcards", {}).items() if name != "id"),
        outputs=tuple(map(Path, record.output)),
        started=time.time(),
        log=next(map(Path, getattr(record, "log", None) or ()), None),
    )


def _without_places(text: str) -> str:
    """Remove the lines about the code that raised an error from its message."""
    first, *lines = text.splitlines()
    kept = [line for line in lines if not line.startswith('  File "')]
    return "\n".join(kept if " in file " in first and kept else [first, *kept])


def _tail(log: Path) -> list[str]:
    """Return the end of a job's log, or why there is none."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return [f"  log: {log} ({error.strerror})"]
    last = f", last {_LOG_LINES} of {len(lines)} lines:" if len(lines) > _LOG_LINES else ":" if lines else " (empty)"
    return [f"  log: {log}{last}", *(f"    {line}" for line in lines[-_LOG_LINES:])]
