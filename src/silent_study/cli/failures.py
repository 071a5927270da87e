"""Error messages in one line."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from silent_study.cli.exits import FAILURE, UNEXPECTED

TRACEBACK_VARIABLE = "SILENT_GRADIENTS_TRACEBACK"

_EXPECTED = {
    "silent_study.data.errors": "DataError",
    "silent_gradients.estimators.contract": "EstimatorError",
    "silent_study.settings": "SettingsError",
    "silent_study.store.runs": "StoreError",
    "silent_study.training.checkpoint": "CheckpointError",
    "silent_study.jobs.lease": "LeaseError",
}
"""Errors whose message is complete, by module; an error can only come from a module that is loaded."""


def report(error: Exception, verb: str, *, shown: bool) -> int:
    """Print an error of a verb to the standard error stream and return the exit code.

    The traceback is ``shown`` on request, also where the environment variable ``SILENT_GRADIENTS_TRACEBACK`` asks.
    """
    shown = shown or os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0")
    if isinstance(error, ExceptionGroup):  # of runs: each with its name as a note
        code = max(report(each, verb, shown=shown) for each in error.exceptions)
        print(f"silent-gradients {verb}: {error.message}", file=sys.stderr)
        return code
    message = _expected(error)
    code = UNEXPECTED if message is None else FAILURE
    if message is None:
        summary = str(error).strip().partition("\n")[0]
        message = f"unexpected {type(error).__name__}{f': {summary}' if summary else ''}"
        kept = None if shown else _saved_traceback(error, verb)
        shown = shown or kept is None
        if kept is not None:
            message += f"; its traceback is in {kept}"
    if shown:
        traceback.print_exception(error, file=sys.stderr)
    about = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    print(f"silent-gradients {verb}: {about}{message}", file=sys.stderr)
    return code


def _expected(error: Exception) -> str | None:
    """Return the message of an expected error; None for any other."""
    known = tuple(getattr(sys.modules[module], name) for module, name in _EXPECTED.items() if module in sys.modules)
    if isinstance(error, known):
        return str(error)
    if isinstance(error, OSError):
        return _of_file(error)
    lacking = error.name if isinstance(error, ModuleNotFoundError) else None
    if lacking and not lacking.startswith(("silent_gradients", "silent_study")):
        return f"the package {lacking} is not installed; pip install 'silent-gradients[workflow]'"
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        summary = str(error).partition("\n")[0].partition(". ")[0] or "no memory left"
        return f"{summary}; use a smaller execution.stack or batch_size, or another device"
    return None


def _of_file(error: OSError) -> str | None:
    """Return the message of an error of the system; None for one that names no file, whose words would not help."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    named = error.filename2 or error.filename
    if error.strerror is None:
        return str(error) or None
    if isinstance(named, str | bytes):
        message = f"{os.fsdecode(named)}: {error.strerror}"
    elif full:
        rooms = {folder: shutil.disk_usage(folder).free for folder in (str(Path.cwd()), tempfile.gettempdir())}
        message = f"{error.strerror} ({', '.join(f'{folder}: {free} bytes free' for folder, free in rooms.items())})"
    else:
        return None
    return f"{message}; make room and repeat the command: finished work is kept" if full else message


def _saved_traceback(error: Exception, verb: str) -> Path | None:
    """Write an error's traceback to a new file and return its path; None if no folder is writable.

    The file lies beside the workflow's logs if there are any, since users cannot see the temporary folder of a
    cluster's node; else in the temporary folder.
    """
    header = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {shlex.join(sys.argv)}\nin {Path.cwd()}, {sys.version}\n\n"
    text = header + "".join(traceback.format_exception(error))
    logs = Path("logs")
    for folder in (*([logs / "errors"] if logs.is_dir() else []), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(exist_ok=True)
            prefix = f"silent-gradients-{verb}-{time.strftime('%Y%m%d-%H%M%S')}-"
            descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".log", dir=folder)
            with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
                file.write(text)
        except OSError:
            continue
        return folder / Path(name).name
    return None
