"""The documents' Python examples run, their links lead somewhere, and what they say of the presets is true."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import silent_gradients
from silent_gradients import params
from silent_gradients.data.sources import SOURCES
from silent_gradients.estimators.contract import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


REGISTRIES: list[dict[str, Any]] = [REGISTRY, SOURCES]


def programs(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if programs(path)], ids=lambda path: path.name)
def test_python_examples_run(path):
    """The blocks of a page are one program."""
    before = [dict(registry) for registry in REGISTRIES]
    namespace = {"__name__": "example"}
    try:
        for number, code in enumerate(programs(path), 1):
            exec(compile(code, f"{path.name}, block {number}", "exec"), namespace)
    finally:
        for registry, entries in zip(REGISTRIES, before, strict=True):
            registry.clear()
            registry.update(entries)


def test_the_library_pages_use_public_names_alone():
    for name in ("add-a-posterior", "add-a-decoder"):
        for code in programs(ROOT / "docs" / f"{name}.md"):
            assert "from silent_gradients." not in code
            for line in re.findall(r"^from silent_gradients import (.*)$", code, re.MULTILINE):
                assert set(line.split(", ")) <= set(silent_gradients.__all__)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_readme_names_every_preset():
    readme = (ROOT / "README.md").read_text()
    for preset in (ROOT / "presets").glob("*.yaml"):
        assert f"`{preset.stem}`" in readme


def test_readme_names_the_two_commands():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert command in targets


def settings(path):
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)]


def test_the_settings_for_own_images_are_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-faces").mkdir()
    for number in range(40):
        Image.fromarray(np.full((9, 7), number, dtype=np.uint8)).save(tmp_path / "my-faces" / f"{number}.jpg")
    (own,) = settings(ROOT / "docs" / "your-own-data.md")
    resolved = params.resolve(own, ROOT / "presets")
    assert {name: list(section) for name, section in resolved.experiments.items()} == {"learnable": ["faces"]}
    source = resolved.sources["faces"]
    assert (source.train, source.test, source.shape) == (36, 4, (1, 9, 7))


def test_the_readme_settings_are_settings():
    (own,) = settings(ROOT / "README.md")
    resolved = params.resolve(own, ROOT / "presets")
    assert resolved.seeds == [0, 1, 2, 3, 4]
    assert list(resolved.experiments) == ["learnable"]
