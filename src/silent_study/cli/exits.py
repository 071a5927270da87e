"""What the exit codes say; docs/command-line.md and ``--help`` have this table."""

DONE = 0
FAILURE = 1
USAGE = 2
UNEXPECTED = 70
TIME_LIMIT = 75
SIGNAL_BASE = 128

EXITS = {
    str(DONE): "done",
    str(FAILURE): "it could not be done, for the reason that the last line says, with the way out",
    str(USAGE): "the command line is wrong",
    str(UNEXPECTED): "an error that nobody foresaw; the last line names the file with its traceback",
    str(TIME_LIMIT): "train: stopped at a checkpoint before its --time-limit; the same command goes on",
    f"{SIGNAL_BASE}+n": "stopped by signal n (130 is Ctrl-C, 143 a kill); train, at a checkpoint",
}
"""Meaning by code."""
