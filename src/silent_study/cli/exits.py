"""Exit codes and their meanings."""

DONE = 0
FAILURE = 1
USAGE = 2
UNEXPECTED = 70
TIME_LIMIT = 75
SIGNAL_BASE = 128

EXITS = {
    str(DONE): "done",
    str(FAILURE): "failed; the last line has the reason and how to fix it",
    str(USAGE): "the command line is wrong",
    str(UNEXPECTED): "unexpected error; the last line names the file with its traceback",
    str(TIME_LIMIT): "train: stopped at a checkpoint before its --time-limit; the same command continues",
    f"{SIGNAL_BASE}+n": "stopped by signal n (130 is Ctrl-C, 143 a kill); train stops at a checkpoint",
}
"""Meaning by code."""
