"""The ways to install the project name the same packages, and the source imports no other."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINNED = ("workflow", "dev", "slurm", "docs")
PINS = {
    canonicalize_name(pin.partition("==")[0]): pin.partition("==")[2]
    for pin in (ROOT / "constraints.txt").read_text().splitlines()
    if not pin.startswith("#")
}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


def test_conda_users_get_the_same_packages():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, *_ = (word for word in environment["dependencies"] if isinstance(word, str) and word.startswith("python"))
    (from_pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))

    assert python == f"python{PROJECT['requires-python']}"
    assert from_pip == ["--constraint constraints.txt", "--editable .[workflow]"]


@pytest.mark.parametrize(
    "requirement", [*PROJECT["dependencies"], *(each for extra in PINNED for each in EXTRAS[extra])]
)
def test_every_requirement_has_a_pin_that_satisfies_it(requirement):
    parsed = Requirement(requirement)

    assert parsed.specifier.contains(PINS[canonicalize_name(parsed.name)])


def test_pins_are_versions_and_name_no_host():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.!+]*", line), line


def test_the_set_up_of_a_laptop_installs_the_workflow_alone(tmp_path):
    """In a folder with spaces in its path, too; the tests add what they need."""
    folder = tmp_path / "a clone of mine"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)

    def installed(target):
        shown = subprocess.run(["make", "-n", target], cwd=folder, capture_output=True, text=True, check=True).stdout
        return re.findall(r"install .* -e '\.\[(.*)\]'", shown)

    assert installed("quickstart") == ["workflow"]
    assert installed("test") == ["workflow", "workflow,dev,slurm,docs"]


def test_training_needs_torch_and_numpy_only():
    assert names(PROJECT["dependencies"]) == {"numpy", "torch"}


def imported_modules(folder: Path) -> set[str]:
    modules: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules.add(node.module.partition(".")[0])
    return modules - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("src", ["workflow"]),
        ("tests", ["workflow", "dev"]),
        ("benchmarks", ["workflow", "benchmarks"]),
        ("studies", ["workflow"]),
    ],
)
def test_what_is_imported_is_required(folder, extras):
    declared = names([*PROJECT["dependencies"], *(requirement for extra in extras for requirement in EXTRAS[extra])])
    own = {"silent_gradients", "silent_study", "docs", "studies", "tests"} | {
        path.name for path in (ROOT / "src").glob("snakemake_*_plugin_*")
    }
    own |= {script.stem for script in (ROOT / folder).glob("*.py")}
    # The tests run without the benchmarks' own extra: a package that is not installed counts by its name.
    distributions = packages_distributions()

    missing = {
        module
        for module in imported_modules(ROOT / folder) - own
        if declared.isdisjoint(canonicalize_name(name) for name in distributions.get(module, [module]))
    }
    assert missing == set()
