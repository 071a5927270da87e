"""Helps: their examples are command lines that parse, and the documentation says what they say."""

import argparse
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from silent_study import cli
from silent_study.cli.exits import EXITS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()


def verbs():
    (found,) = [action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return found


def examples():
    for name, parser in {"silent-gradients": cli.parser(), **verbs().choices}.items():
        for line in re.findall(r"^  (.*silent-gradients .*)$", parser.epilog, re.MULTILINE):
            yield pytest.param(line, id=f"{name}: {line[:60]}")


def documented():
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if not language and "silent-gradients " in line:
                yield pytest.param(line, id=line[:60])


def parsed(line):
    """What the parser makes of the silent-gradients command in a line of shell."""
    command = re.search(r"silent-gradients [^|>)]*", line)[0]
    words = shlex.split(command.rstrip('"'), comments=True)
    return cli.parser().parse_args(words[1:])


@pytest.mark.parametrize("line", [*examples(), *documented()])
def test_examples_parse(line):
    if not line.startswith("snakemake "):
        assert parsed(line).verb in line


@pytest.mark.parametrize("name", verbs().choices)
def test_every_verb_shows_its_own_examples_and_its_help(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert f"  silent-gradients {name}" in shown or f"(silent-gradients {name}" in shown
    for action in verbs().choices[name]._actions:
        assert action.help, f"{name}: {action.dest} has no help"


def test_the_help_has_the_exit_codes(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    for code, meaning in EXITS.items():
        assert re.search(rf"^  {re.escape(code)} +{re.escape(meaning)}$", shown, re.MULTILINE)


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"silent-gradients {version('silent-gradients')}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_helps_load_no_library(arguments):
    program = "import sys; from silent_study.cli import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.splitlines()[-1].split())
    assert not loaded & {"torch", "numpy", "pandas", "pydantic", "yaml", "rich", "requests", "shtab"}


def test_the_package_run_as_a_module_is_the_command_line():
    def ran(*words):
        return subprocess.run([sys.executable, "-m", "silent_study", *words], capture_output=True, text=True)

    shown = ran("--version")
    assert (shown.returncode, shown.stdout.split()[-1]) == (0, version("silent-gradients"))
    wrong = ran("nothing")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("silent-gradients: argument verb: 'nothing' is none of plan, ")
