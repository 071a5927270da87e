"""The verb completion."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from silent_study.cli.parsing import add_verb, given_path

if TYPE_CHECKING:
    from silent_study.cli.parsing import Verbs


def add_verbs(verbs: Verbs) -> None:
    """Add the verb."""
    completion = add_verb(verbs, _completion, in_study=False)
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="the shell: %(choices)s")


def _completion(options: argparse.Namespace) -> int:
    """Print the completion of a shell.

    Print a script with which a shell completes verbs, options, data sets and files.

    eval "$(silent-gradients completion bash)"  # for this shell; as a line of ~/.bashrc, for all
    silent-gradients completion zsh > ~/.zfunc/_silent-gradients  # where fpath has ~/.zfunc
    """
    import shtab

    from silent_study.cli import parser

    print(shtab.complete(_annotated(parser()), options.shell))
    return 0


def _annotated(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Annotate the parser with the completions of data sets, folders and files."""
    import shtab

    from silent_study.data.sources import SOURCES

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _annotated(verb)
        elif action.dest == "dataset":
            action.choices = sorted(SOURCES)
        elif action.type is given_path:
            folder = action.metavar == "FOLDER" or action.dest.endswith("folder")
            action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]
    return parser
