"""The documents' Python examples run, their links lead somewhere, and what they say of the presets is true."""

import os
import re
import subprocess
import sys
import tomllib
from typing import Any

import numpy as np
import pytest
import yaml
from docs.settings_reference import markdown
from PIL import Image
from tests.docs.notebooks import NOTEBOOKS, ROOT, code, read
from tests.params.test_minimal_reruns import keys

import silent_gradients
from silent_gradients.estimators.contract import REGISTRY
from silent_study import params
from silent_study.cli import parser
from silent_study.data.sources import SOURCES
from silent_study.params.schema import Params

TOP = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
DOCUMENTS = sorted([*(ROOT / name for name in TOP), *(ROOT / "docs").rglob("*.md")])
REGISTRIES: list[dict[str, Any]] = [REGISTRY, SOURCES]


def programs(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def extension(kind):
    """Return the section of docs/extend.md about one kind."""
    return (ROOT / "docs" / "extend.md").read_text().partition(f"\n## {kind}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if programs(path.read_text())], ids=lambda path: path.name)
def test_python_examples_run(path, capsys):
    """The blocks of a page are one program; they print what stands beside their calls of print."""
    before = [dict(registry) for registry in REGISTRIES]
    namespace = {"__name__": "example"}
    try:
        for number, code in enumerate(programs(path.read_text()), 1):
            exec(compile(code, f"{path.name}, block {number}", "exec"), namespace)
            promised = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
            printed = capsys.readouterr().out.splitlines()
            for text, line in zip(promised, printed, strict=bool(promised)):
                (name, value), (expected_name, expected) = line.rsplit(" ", 1), text.rsplit(" ", 1)
                assert name == expected_name
                assert float(value) == pytest.approx(float(expected), rel=0.02)
    finally:
        for registry, entries in zip(REGISTRIES, before, strict=True):
            registry.clear()
            registry.update(entries)


@pytest.mark.slow
def test_the_estimators_of_the_page_conform(tmp_path):
    """They join the registry before its tests are collected, as their files in the package would."""
    page = extension("An estimator")
    plugins = [f"of_the_page_{number}" for number in range(2)]
    for name, code_ in zip(plugins, programs(page), strict=True):
        (tmp_path / f"{name}.py").write_text(code_)
    names = re.findall(r'^    name = "(.*)"$', page, re.MULTILINE)
    assert len(names) == 2
    command = [sys.executable, "-m", "pytest", "-q", "-k", " or ".join(names)]
    command += [f"-p{name}" for name in ("no:cacheprovider", *plugins)]
    command += ["tests/method/estimators/test_conformance.py"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) > 100


@pytest.mark.parametrize("place", [*NOTEBOOKS, "A posterior", "A decoder"])
def test_library_examples_use_public_names_alone(place):
    sources = programs(extension(place)) if isinstance(place, str) else [cell.source for cell in code(read(place))]
    assert sources
    for source in sources:
        assert "from silent_gradients." not in source
        for line in re.findall(r"^from silent_gradients import (.*)$", source, re.MULTILINE):
            assert set(line.split(", ")) <= set(silent_gradients.__all__)


def prose(path):
    """Return a page's text, or that of a notebook's Markdown cells, without blocks of code."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """Return the anchors of a page's headings, as repository browsers and the site name them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*DOCUMENTS, *NOTEBOOKS], ids=lambda path: path.name)
def test_relative_links_lead_to_files_and_headings(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_document_is_reached_from_the_readme_which_names_every_preset():
    reached, left = set(), [ROOT / "README.md"]
    while left:
        path = left.pop()
        reached.add(path)
        links = re.findall(r"\]\(([^)#\s]+\.md)", path.read_text())
        left += {(path.parent / link).resolve() for link in links if "://" not in link} - reached
    assert set(DOCUMENTS) <= reached
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{preset.stem}`" in readme for preset in ROOT.glob("presets/*.yaml"))


def test_commands_and_make_targets_in_documents_exist():
    verbs = {verb for action in parser()._actions if isinstance(action.choices, dict) for verb in action.choices}
    assert {"plan", "train"} <= verbs
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for path in DOCUMENTS:
        blocks = re.findall(r"```(?:bash|sh)?\n(.*?)```", path.read_text(), re.DOTALL)
        for verb in re.findall(r"^silent-gradients ([a-z]+)", "\n".join(blocks), re.MULTILINE):
            assert verb in verbs, f"{path.name}: {verb}"
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), re.MULTILINE):
            assert target in targets, f"{path.name}: {target}"


def test_the_citation_is_a_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["cff-version"], citation["type"], bool(citation["message"])) == ("1.2.0", "software", True)
    assert citation["title"].startswith(project["name"])
    for key in ("authors", "version", "license"):
        assert citation[key] == project[key]
    (paper,) = citation["references"]
    assert (paper["type"], paper["url"]) == ("article", "https://arxiv.org/abs/2508.03587")
    assert paper["authors"]


def settings(path):
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)]


@pytest.mark.parametrize("name", ["README", "docs/quickstart", "docs/reproduce-the-paper"])
def test_settings_of_pages_are_settings(name):
    (own,) = settings(ROOT / f"{name}.md")
    resolved = params.resolve(own, ROOT / "presets")
    assert resolved.preset == own["preset"]
    if name == "README":
        assert resolved.seeds == [0, 1, 2, 3, 4]
        assert list(resolved.experiments) == ["learnable"]


def test_the_settings_for_own_images_are_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-faces").mkdir()
    for number in range(40):
        Image.fromarray(np.full((9, 7), number, dtype=np.uint8)).save(tmp_path / "my-faces" / f"{number}.jpg")
    (own,) = settings(ROOT / "docs" / "data.md")
    resolved = params.resolve(own, ROOT / "presets")
    assert {name: list(section) for name, section in resolved.experiments.items()} == {"learnable": ["faces"]}
    source = resolved.sources["faces"]
    assert (source.train, source.test, source.shape) == (36, 4, (1, 9, 7))


def test_the_site_names_pages_by_their_headings_and_lists_the_public_names():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert not re.search(r"- .+: .*\.md", navigation)
    page = (ROOT / "docs" / "api.md").read_text()
    listed = re.findall(r"^::: silent_gradients\.([\w.]+)$", page, re.MULTILINE)
    examples = re.findall(r"^::: silent_gradients\.([\w.]+)\n\n```python\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    assert [name for name, example in examples if name.rpartition(".")[2] in example] == listed
    assert {name.partition(".")[0] for name in listed} == set(silent_gradients.__all__)
    assert len(set(listed)) == len(listed)


def test_the_reference_of_the_settings_is_current_and_describes_every_key():
    text = (ROOT / "docs" / "settings.md").read_text()
    assert text == markdown(), "run: make reference"
    assert not [row for row in text.splitlines() if row.endswith("|  |")]
    for key in keys(Params):
        assert f"| `{key.rpartition('.')[2]}` | " in text


def test_the_reference_of_the_settings_writes_values_as_yaml_does():
    """One value per kind of type, by hand."""
    rows = dict(row.strip("| ").split(" | ", 1) for row in markdown().splitlines() if row.startswith("| `"))
    assert rows["`seed`"].startswith("integer ≥ 0 and ≤ 9007199254740992 | `0` | Seed of the order")
    assert rows["`levels`"].startswith("integer ≥ 2 and ≤ 256 | `256` | ")
    assert rows["`betas`"].startswith("list of 2: number ≥ 0 and < 1 | `[0.9, 0.999]` | ")
    assert rows["`size`"].startswith("null or list of 2: integer > 0 | `null` | ")
    assert rows["`channels`"].startswith("null or `1` or `3` | `null` | ")
    assert rows["`mean_rate`"].startswith("list of: null or number > 0 | `[null]` | ")
    assert rows["`steps`"].startswith('`graph` or `streams` or `eager` | `"graph"` | ')
    assert rows["`substitute`"].startswith("mapping to text | `{}` | ")
    assert rows["`sets`"].startswith("section by name | `{}` | ")
    assert rows["`grid`"].startswith("section | required | ")
