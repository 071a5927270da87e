"""Parsers of the verbs: examples in every help, usage errors of one line, options that verbs share."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from silent_study.cli.exits import USAGE
from silent_study.words import did_you_mean

if TYPE_CHECKING:
    from silent_study.plan.plan import Plan

    Verbs = argparse._SubParsersAction["OneLineParser"]

_EXAMPLES = "examples:\n"


class ExamplesFormatter(argparse.HelpFormatter):
    """Leaves examples as they are, wraps all other text, and has room for long verbs."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, **{"max_help_position": 28, **kwargs})

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


class OneLineParser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command line, and what was meant by a misspelt word."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, where the help is, and exit."""
        print(f"{self.prog}: {message}; see: {self.prog} --help", file=sys.stderr)
        sys.exit(USAGE)

    def unrecognized(self, words: Sequence[str]) -> NoReturn:
        """Say that these words mean nothing here, and exit."""
        options = [name for name in self._option_string_actions if name.startswith("--")]
        meant = [did_you_mean(word.partition("=")[0], options) for word in words if word.startswith("--")]
        self.error(f"unrecognized arguments: {' '.join(words)}{next(filter(None, meant), '')}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            raise argparse.ArgumentError(
                action, f"{value!r} is none of {', '.join(known)}{did_you_mean(str(value), known)}"
            )


def as_examples(lines: Sequence[str]) -> str:
    """The end of a help, which shows how it is called."""
    return _EXAMPLES + "\n".join(f"  {line}" for line in lines)


def add_verb(
    verbs: Verbs,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    examples: Sequence[str],
    description: str | None = None,
) -> OneLineParser:
    """Add a verb.

    Args:
        verbs: Where to.
        name: As it is typed.
        run: What it does; returns the exit code.
        summary: In the list of verbs.
        examples: Command lines, which a test parses.
        description: At the top of the verb's own help; by default the summary.
    """
    parser = verbs.add_parser(
        name,
        help=summary,
        description=description or f"{summary[0].upper()}{summary[1:]}.",
        epilog=as_examples(examples),
        formatter_class=ExamplesFormatter,
    )
    parser.add_argument("--traceback", action="store_true", help="show the traceback of any error")
    parser.set_defaults(run=run, parser=parser)
    return parser


def whole_number(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least ``least``."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, got {text!r}")
        return number

    return read


def positive_number(text: str) -> float:
    """Reads a positive, finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return number


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the options of a verb that reads the plan."""
    parser.add_argument("--config", metavar="JSON", help="content of params.yaml as JSON, in place of the file")
    add_results(parser)


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the results."""
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER", help="default: %(default)s")


def own_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that lie over the preset."""
    from silent_study.params.overlay import read_yaml

    return read_yaml(Path("params.yaml")) if options.config is None else read_document(options.config, "--config")


def load_plan(options: argparse.Namespace) -> Plan:
    """The plan that the settings come to."""
    from silent_study.params import resolve
    from silent_study.plan.plan import Plan

    check_results(options.results)
    return Plan(resolve(own_settings(options), Path("presets")), options.results)


def check_results(results: Path) -> None:
    """Raise ``StoreError`` where the results are a file."""
    from silent_study.store.runs import StoreError

    if results.exists() and not results.is_dir():
        raise StoreError(f"{results}: a file, where the folder of the results should be; move it away")


def read_document(text: str | bytes, where: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SettingsError: It is none; the message names ``where``.
    """
    from silent_study.settings import SettingsError

    try:
        document = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{where}: no JSON ({error})") from None
    if not isinstance(document, dict):
        raise SettingsError(f"{where}: expected a JSON object, got {type(document).__name__}")
    return document
