"""The command line ``silent-gradients``.

The functions of the verbs import what they need, so that parsing and ``--help`` load no library.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from silent_study.cli import data, runs, shell, study
from silent_study.cli.exits import EXITS, SIGNAL_BASE, USAGE
from silent_study.cli.failures import TRACEBACK_VARIABLE, report
from silent_study.cli.parsing import ExamplesFormatter, OneLineParser, as_examples, study_folder
from silent_study.jobs.stopping import interrupted_by_signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed: the next file that is opened would take its place
            setattr(sys, stream, Path(os.devnull).open("w"))  # noqa: SIM115 - until the process ends
    words, made = sys.argv[1:] if arguments is None else arguments, parser()
    if not words:
        made.print_help(sys.stderr)
        sys.exit(USAGE)
    options, unknown = made.parse_known_args(words)
    if unknown:
        # The verb's parser has the options to suggest.
        options.parser.unrecognized(unknown)
    with contextlib.chdir(study_folder() if options.in_study else "."), interrupted_by_signals():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # for instance after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGNAL_BASE + signal.SIGPIPE
    except KeyboardInterrupt as interrupt:
        print(f"stopped: silent-gradients {options.verb} was interrupted", file=sys.stderr)
        return SIGNAL_BASE + (interrupt.args or (signal.SIGINT,))[0]
    except Exception as error:  # noqa: BLE001 - reported, with a traceback in a file if it was not expected
        return report(error, options.verb, shown=options.traceback)
    return code


def parser() -> OneLineParser:
    """Return the parser of the whole command line."""
    codes = "\n".join(f"  {code:<7} {meaning}" for code, meaning in EXITS.items())
    made = OneLineParser(
        prog="silent-gradients",
        description="Variational autoencoders with exact, zero-variance gradients: the steps of the workflow. "
        "`snakemake --cores 8 --resources gpu=8 all` runs all of them.",
        epilog=as_examples(
            (
                "silent-gradients plan  # the runs of params.yaml",
                "silent-gradients status --watch  # progress of a workflow in another terminal",
                "silent-gradients report --open",
            )
        )
        + f"\n\nexit codes:\n{codes}\n\n{TRACEBACK_VARIABLE}=1 shows the traceback of any error.",
        formatter_class=ExamplesFormatter,
    )
    made.add_argument("--version", action=_Version, help="print the version and exit")
    verbs = made.add_subparsers(dest="verb", required=True, metavar="verb")
    for group in (study, data, runs, shell):
        group.add_verbs(verbs)
    return made


class _Version(argparse.Action):
    """Print the version; looked up on demand, since that takes as long as the rest of the start."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"silent-gradients {version('silent-gradients')}")
        except PackageNotFoundError:
            from silent_study.store.provenance import source_revision

            print(f"silent-gradients, not installed, revision {source_revision()['revision'] or 'unknown'}")
        parser.exit()
