"""No text of the settings reaches a shell unquoted, and no file is read in a way that could run code."""

import ast
import json
import re
import shlex
import string
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake.utils import QuotedFormatter, SequenceFormatter
from tests.workflow.repository import section

from silent_study import params
from silent_study.params import schema
from silent_study.plan.plan import Plan
from silent_study.settings import SettingsError

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("studies/*.py")])
RULES = sorted(ROOT.glob("workflow/rules/*.smk"))


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def calls():
    """Yield every call of the sources: its file, its full name as written there, its arguments by place or name."""
    for path in SOURCES:
        for node in nodes(path):
            if isinstance(node, ast.Call):
                values = [*enumerate(node.args), *((word.arg, word.value) for word in node.keywords)]
                arguments = {place: ast.unparse(value) for place, value in values}
                yield path.relative_to(ROOT), ast.unparse(node.func), arguments


def test_no_file_is_read_in_a_way_that_could_run_code():
    """The one unpickler, of official files alone, is a class that allows arrays; it is tested with its data set."""
    wrong = []
    for path, name, arguments in calls():
        last = name.rpartition(".")[2]
        if (
            (name == "torch.load" and arguments.get("weights_only") != "True")
            or name in {"pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "joblib.load"}
            or (last == "load" and arguments.get("allow_pickle", "False") != "False")
            # The base loader makes nothing but texts, lists and mappings of them.
            or (name == "yaml.load" and arguments.get(1) != "yaml.BaseLoader")
            or (name.startswith("yaml.") and last not in {"load", "safe_load", "safe_dump"})
        ):
            wrong.append(f"{path}: {name}({arguments})")
    assert not wrong
    subclasses = [
        (path.name, node.name)
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, ast.ClassDef) and any("Unpickler" in ast.unparse(base) for base in node.bases)
    ]
    assert subclasses == [("downsampled_imagenet.py", "_ArraysOnly")]


TALKATIVE = {"aiohttp", "ftplib", "http", "pooch", "requests", "smtplib", "socket", "urllib3"}
"""Modules that open connections."""


def test_connections_are_opened_in_one_place():
    """To download data sets."""
    found = set()
    for path in ROOT.glob("src/**/*.py"):
        for node in nodes(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            if any(name.partition(".")[0] in TALKATIVE or name.startswith("urllib.request") for name in names):
                found.add(path.relative_to(ROOT / "src").as_posix())
    assert found == {"silent_study/data/raw.py"}


def test_no_python_hands_a_text_to_a_shell():
    wrong = [
        f"{path}: {name}"
        for path, name, arguments in calls()
        if arguments.get("shell", "False") != "False"
        or name in {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "eval", "exec"}
    ]
    assert not wrong


@cache
def commands() -> dict[str, str]:
    """Return the shell command of every rule, as it stands in the rule's file."""
    rules = "\n".join(path.read_text() for path in RULES)
    blocks = re.findall(r"^(?:rule|checkpoint) (\w+):\n((?:    .*\n|\n)*)", rules, re.MULTILINE)
    texts = {name: block.partition("    shell:\n")[2] for name, block in blocks}
    return {name: ast.literal_eval(f"({text})") for name, text in texts.items() if text}


SHELL = SequenceFormatter(element_formatter=QuotedFormatter())
"""As Snakemake fills in a command."""

# Numbers and a file name of identifiers: nothing in them that a shell would read otherwise.
HARMLESS = {"params.checkpoint_seconds", "params.stack", "log"}


def test_every_rule_quotes_what_it_inserts():
    found = commands()
    assert {"download", "prepare", "dequantize", "train_pack", "select", "gather"} <= found.keys()
    for rule, command in found.items():
        for _, name, form, _ in string.Formatter().parse(command):
            assert name is None or form == "q" or name in HARMLESS, f"{rule}: {{{name}}}"


def words(rule: str, wildcards: dict[str, str], **values: Any) -> list[str]:
    """Return the words that a shell makes of a rule's command."""
    params, names = SimpleNamespace(**values), SimpleNamespace(**wildcards)
    return shlex.split(SHELL.format(commands()[rule], wildcards=names, params=params, log="log"), comments=False)


HOSTILE = st.one_of(
    st.sampled_from(
        ["$(touch x)", "`touch x`", "a;touch x", "'; touch x; '", '"', "\n", "a\nb", "-rf", "{x}", "&&", "~"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
)


def resolved(study: Path, own: dict[str, Any]) -> params.Params | str:
    """The settings, or why they are refused."""
    try:
        return params.resolve({"preset": "study", **own}, study)
    except SettingsError as error:
        return str(error)


@hypothesis.settings(deadline=None)
@given(mirror=HOSTILE.filter(bool))
def test_a_mirror_of_any_name_is_one_word_of_the_command(study, mirror):
    settings = resolved(study, {"data": {"mirror": mirror}})
    assert isinstance(settings, params.Params)
    word = f"--mirror={settings.data.mirror}"
    found = words("prepare", {"dataset": "digits"}, options=[word])
    assert found[:4] == ["silent-gradients", "prepare", "digits", word]


@hypothesis.settings(deadline=None)
@given(value=HOSTILE, number=st.floats(1e-6, 1))
def test_settings_travel_through_the_shell_as_they_are(value, number):
    config = json.dumps({"preset": value, "data": {"mirror": value}, "seeds": [number]}, sort_keys=True)
    found = words("select", {"round": "baselines", "group": "digits/fixed"}, config=config)
    assert found[:5] == ["silent-gradients", "select", "baselines", "digits/fixed", "--settings"]
    assert json.loads(found[5]) == json.loads(config)


@hypothesis.settings(deadline=None)
@given(path=HOSTILE.filter(bool), title=HOSTILE)
def test_own_images_travel_through_the_shell_as_they_are(path, title):
    entry = schema.OwnImagesParams(path=path, title=title)
    data = schema.DataParams(sets={"mine": entry})
    settings = params.Params(preset="study", seeds=[0], experiments={}, data=data)
    found = words("dequantize", {"dataset": "mine"}, options=[f"--settings={settings.own_set('mine')}"])
    assert found[:3] == ["silent-gradients", "dequantize", "mine"]
    sets = json.loads(found[3].removeprefix("--settings="))["data"]["sets"]
    assert schema.OwnImagesParams(**sets["mine"]) == entry


USED = {"experiments": {"fixed": {"mine": section(["reparameterization"], grid={"learning_rate": [0.1]})}}}

PLACES = {
    "preset": lambda value: {"preset": value},
    "data set": lambda value: {"experiments": {"fixed": {value: {"epochs": 2}}}},
    "experiment": lambda value: {"experiments": {value: {"digits": {}}}},
    "method": lambda value: {"experiments": {"fixed": {"digits": {"methods": [value]}}}},
    "protocol": lambda value: {"protocol": value},
    "seeds": lambda value: {"seeds": [value]},
    "time limit": lambda value: {"execution": {"time_limit": value}},
    "stack": lambda value: {"execution": {"stack": value}},
    "clock": lambda value: {"execution": {"checkpoint_seconds": value}},
    "rate": lambda value: {"experiments": {"fixed": {"digits": {"grid": {"learning_rate": [value]}}}}},
    "substitute": lambda value: {"data": {"substitute": {"digits": value}}},
    "own set": lambda value: {"data": {"sets": {value: {"path": "images"}}}},
    "own path": lambda value: {"data": {"sets": {"mine": {"path": f"no/{value}"}}}, **USED},
    "unknown key": lambda value: {f"x{value}": 1},
}


@pytest.mark.parametrize("place", PLACES)
@hypothesis.settings(deadline=None)
@given(value=HOSTILE)
def test_texts_in_the_places_of_names_and_numbers_are_refused_or_harmless(study, place, value):
    settings = resolved(study, PLACES[place](value))
    if isinstance(settings, str):
        # A line for each thing that is wrong, which begins with its key.
        key = re.compile(r"experiments|preset|protocol|seeds|execution|data|['\"]?x")
        assert all(key.match(line) for line in settings.splitlines())
        return
    # What stands as a number in a text is a number from here on, and every path is of the names that are known.
    execution = settings.execution
    assert isinstance(execution.stack, int)
    assert isinstance(execution.checkpoint_seconds, float)
    plan = Plan(settings)
    for pack in plan.packs("baselines", {}):
        path = str(plan.manifest(pack))
        assert shlex.quote(path) == path
