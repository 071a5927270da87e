"""Parsers of the verbs."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from silent_study.cli.exits import USAGE
from silent_study.settings import read_json_object
from silent_study.words import did_you_mean

if TYPE_CHECKING:
    from silent_study.plan.plan import Plan

    Verbs = argparse._SubParsersAction["OneLineParser"]

_EXAMPLES = "examples:\n"


class ExamplesFormatter(argparse.HelpFormatter):
    """Help formatter that keeps the line breaks of examples and has room for long verbs."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, **{"max_help_position": 28, **kwargs})

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


class _Once(argparse.Action):
    """Store the words after an option; refuse the option given twice, of which Snakemake takes the last alone."""

    def __call__(self, parser: argparse.ArgumentParser, options: argparse.Namespace, values: Any, *_: object) -> None:
        if getattr(options, self.dest):
            raise argparse.ArgumentError(self, "given twice; put all values after one, as for Snakemake")
        setattr(options, self.dest, values)


class OneLineParser(argparse.ArgumentParser):
    """Parser whose usage errors are one line, with a correction of a misspelt word."""

    def error(self, message: str) -> NoReturn:
        """Print an error and the command that shows the help, and exit."""
        print(f"{self.prog}: {message}; see: {self.prog} --help", file=sys.stderr)
        sys.exit(USAGE)

    def unrecognized(self, words: Sequence[str]) -> NoReturn:
        """Print an error about unknown words, and exit."""
        options = [name for name in self._option_string_actions if name.startswith("--")]
        meant = [did_you_mean(word.partition("=")[0], options) for word in words if word.startswith("--")]
        self.error(f"unrecognized arguments: {' '.join(words)}{next(filter(None, meant), '')}")

    def add_option(
        self, name: str, kind: Callable[[str], Any], metavar: str, text: str, default: Any = None, **more: Any
    ) -> None:
        """Add an option with one value of a kind, which reads it; the help is ``text`` and the default."""
        shown = text if default is None else f"{text} (default: %(default)s)"
        self.add_argument(name, type=kind, metavar=metavar, help=shown, default=default, **more)

    def add_config(self, *, several: bool = True) -> None:
        """Add the options that change the settings; ``several`` words after ``--config`` would take any to follow."""
        many: dict[str, Any] = {"action": _Once, "nargs": "+"} if several else {"action": "append"}
        text = "settings laid over params.yaml as by Snakemake's --config, or a JSON object of settings"
        self.add_argument("--config", default=[], metavar="KEY=VALUE", help=text, **many)
        text = "YAML files of settings laid over params.yaml before --config, as by Snakemake's --configfile"
        self.add_argument("--configfile", type=given_path, default=[], metavar="FILE", help=text, **many)
        self.add_argument("--settings", metavar="JSON", help="all settings as a JSON object, in place of params.yaml")

    def add_study(self, *, several: bool = True) -> None:
        """Add the options that ``load_plan`` reads: the settings and the folder of the results."""
        self.add_config(several=several)
        self.add_option("--results", given_path, "FOLDER", "the results", Path("results"))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            meant = did_you_mean(str(value), known)
            raise argparse.ArgumentError(action, f"{value!r} is none of {', '.join(known)}{meant}")


def as_examples(lines: Sequence[str]) -> str:
    """Return the end of a help text: examples of calls."""
    return _EXAMPLES + "\n".join(f"  {line}" for line in lines)


def add_verb(verbs: Verbs, run: Callable[[argparse.Namespace], int], *, in_study: bool = True) -> OneLineParser:
    """Add a verb with the name and the help of the function that runs it, ``_<verb>``, and returns an exit code.

    The paragraphs of its docstring are the summary in the list of verbs, an optional description for the top of the
    verb's help (default: the summary), and examples, one command a line. The verb is run in the folder of the study,
    also when called below it, or, without ``in_study``, in the current one.
    """
    text = "\n".join(line.strip() for line in (run.__doc__ or "").strip().splitlines())
    summary, *description, examples = text.split("\n\n")
    parser = verbs.add_parser(
        run.__name__.removeprefix("_"),
        help=f"{summary[0].lower()}{summary[1:].removesuffix('.')}",
        description="\n".join(description) or summary,
        epilog=as_examples(examples.splitlines()),
        formatter_class=ExamplesFormatter,
    )
    parser.add_argument("--traceback", action="store_true", help="show the traceback of any error")
    parser.set_defaults(run=run, parser=parser, in_study=in_study)
    return parser


def whole_number(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers of at least ``least``."""

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
    """Read a positive, finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return number


def given_path(text: str) -> Path:
    """Read a path: ``~`` is the home folder, and a relative path starts where the command was called."""
    path = Path(text).expanduser()
    # Verbs run in the folder of the study, which may be above.
    return path if study_folder() == Path.cwd() else Path.cwd() / path


def given_mirror(text: str) -> str:
    """Read a folder as ``given_path`` does, or an http(s) address."""
    return text if "://" in text else str(given_path(text))


def study_folder() -> Path:
    """Return the nearest folder upward with params.yaml and a Snakefile, else the current folder.

    The current folder is taken without a Snakefile too, if it has params.yaml.
    """
    here = Path.cwd()
    if not (here / "params.yaml").exists():
        for folder in here.parents:
            if (folder / "params.yaml").exists() and (folder / "Snakefile").exists():
                return folder
    return here


def own_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings over the preset: params.yaml or ``--settings``, ``--configfile`` and ``--config`` over it."""
    from silent_study.params.overlay import read_config, read_yaml, settings_over

    if options.settings is not None:
        own = read_json_object(options.settings, "--settings")
    else:
        path = Path("params.yaml")
        own = read_yaml(path) if path.exists() or not (options.config or options.configfile) else {}
    for closer in (*map(read_yaml, options.configfile), *map(read_config, options.config)):
        own = settings_over(own, closer, removing=False)
    return own


def load_plan(options: argparse.Namespace) -> Plan:
    """Return the plan of the settings."""
    from silent_study.params import presets_folder, resolve
    from silent_study.plan.plan import Plan

    return Plan(resolve(own_settings(options), presets_folder()), options.results)
