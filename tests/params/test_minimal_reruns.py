"""What an edit of params.yaml runs again: reruns.yaml, row by row, and a row for every key."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import BaseModel

from silent_study.params import resolve
from silent_study.params.schema import ExperimentParams, OwnImagesParams, Params
from silent_study.plan.plan import Plan

TABLE = {
    key: (yaml.safe_load(value), *words)
    for key, (value, *words) in yaml.safe_load((Path(__file__).parent / "reruns.yaml").read_text()).items()
}
FIXED = "digits/fixed"
SECTIONS = {"*.grid.variance": "experiments.fixed.digits"}
SECTIONS |= dict.fromkeys(("*.activation", "*.hidden_units", "*.pixel_variances"), "experiments.two-layer.digits")
"""Where a key is set that concerns one experiment."""


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of the settings; ``*`` stands for an experiment on a data set, or for own images."""
    found = []
    for name, field in model.model_fields.items():
        models: dict[str, Any] = {"experiments": ExperimentParams, "sets": OwnImagesParams}
        nested = models.get(name, field.annotation)
        inner = {"experiments": f"{prefix}*.", "sets": f"{prefix}sets.*."}.get(name, f"{prefix}{name}.")
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            found += keys(nested, inner)
        else:
            assert BaseModel not in get_args(nested)
            found.append(f"{prefix}{name}")
    return found


@pytest.fixture(scope="module")
def presets(study, tmp_path_factory):
    """The study with its learnable experiment on 32x32 images, for which both architectures are."""
    folder: Path = tmp_path_factory.mktemp("reruns")
    document = yaml.safe_load((study / "study.yaml").read_text())
    document["experiments"]["learnable"] = {"cifar10": document["experiments"]["learnable"].pop("digits")}
    document["experiments"]["two-layer"] = dict(document["experiments"]["fixed"])
    for name in ("study", "other"):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
    document["experiments"]["fixed"] = {"images": document["experiments"]["fixed"].pop("digits")}
    document["data"] = {"sets": {"images": {"path": "images"}}}
    (folder / "own.yaml").write_text(yaml.safe_dump(document))
    for first, name in enumerate(("images", "others")):
        (folder / name).mkdir()
        for number in range(20):
            pixels = np.full((4, 4), first + number, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def _beside_the_images(presets, monkeypatch):
    monkeypatch.chdir(presets)


def nested(key: str, value: Any) -> dict[str, Any]:
    """Settings that set one key in a section that it concerns."""
    if key == "*.network.architecture":  # it has other numbers of channels
        key, channels = "*.network", [4, 4, 4, 4]
        value = {"architecture": value, "encoder_channels": channels, "decoder_channels": channels}
    section = SECTIONS.get(key, "experiments.learnable.cifar10")
    section = "images" if key.startswith("data.sets") else section
    for part in reversed(key.replace("*", section).split(".")):
        value = {part: value}
    return value


def identities(plan: Plan) -> dict[tuple[str, ...], Any]:
    """Runs, jobs and selections by what they are of, where the first point of every grid is selected."""
    found: dict[tuple[str, ...], Any] = {}
    selections: dict[str, Any] = {}
    for group in plan.groups():
        rounds = plan.rounds(group)
        for round_ in rounds:
            packs = plan.packs(round_, selections, group)
            found.setdefault(("runs", group), set()).update(run.id for pack in packs for run in pack.members)
            found["jobs", group, round_] = [pack.id for pack in packs]
            if round_ != "seeds":
                found["selections", group, round_] = plan.selection_id(round_, group, selections)
            for cell in plan.cells_of(round_, group) if round_ != "seeds" else ():
                point, _ = plan.grid_runs(cell, selections)[0]
                selections[cell.name] = {"status": "selected", "point": point}
    found["report",] = plan.id(selections)
    return found


def in_words(before: dict[tuple[str, ...], Any], after: dict[tuple[str, ...], Any]) -> tuple[str, str, str, str]:
    """As in the table: trainings, jobs by round, selections by round, report."""
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    stay = {run for name, runs in before.items() if name[0] == "runs" for run in runs & after.get(name, set())}
    come = {run for name, runs in after.items() if name[0] == "runs" for run in runs - before.get(name, set())}
    edited = {name[1] for name in changed if name[0] == "runs"}
    stay_in_edited = stay & {run for group in edited for run in before.get(("runs", group), ())}
    trained = "none" if not come else "some" if stay_in_edited else "all"

    def rounds(kind: str) -> str:
        names = {name[2] for name in changed if name[0] == kind}
        return ", ".join(round_ for round_ in ("baselines", "guided", "seeds") if round_ in names) or "none"

    return trained, rounds("jobs"), rounds("selections"), "yes" if ("report",) in changed else "no"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"experiments": {"fixed": {"digits": {"weight_decay": 0.01, "batch_size": 64}}}}, ("none",) * 3 + ("no",)),
        ({"seeds": [3, 0, 1]}, ("some", "baselines, guided, seeds", "baselines, guided", "yes")),
    ],
    ids=["settings written out", "another first seed"],
)
def test_an_edit_of_several_settings(presets, edit, words):
    own = {"preset": "study"}
    assert in_words(identities(Plan(resolve(own, presets))), identities(Plan(resolve(own | edit, presets)))) == words


def test_every_key_has_a_row():
    assert list(TABLE) == keys(Params)


@pytest.mark.parametrize("key", keys(Params))
def test_an_edit_runs_again_what_the_table_says(presets, key):
    value, *words = TABLE[key]
    own = {"preset": "own" if key.startswith("data.sets") else "study"}
    before = identities(Plan(resolve(own, presets)))
    after = identities(Plan(resolve(own | nested(key, value), presets)))
    assert list(in_words(before, after)) == words
    if key.startswith("*."):  # another section's runs, jobs and selections stay
        group = "cifar10/learnable" if key == "*.grid.variance" else FIXED
        others = [name for name in before if name[1:2] == (group,)]
        assert len(others) > 2
        assert [after[name] for name in others] == [before[name] for name in others]
