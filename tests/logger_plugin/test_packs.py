"""What is said of packs, from files written here."""

import json
import os
from pathlib import Path

import pytest

from snakemake_logger_plugin_silent_gradients import packs

MANIFEST = Path("results/packs/baselines/digits/fixed/gumbel-softmax/3-77ab.json")
CELL = "digits/fixed/gumbel-softmax"


@pytest.fixture
def manifest(tmp_path):
    return tmp_path / MANIFEST


def write_curve(manifest: Path, run: str, text: str, time: float) -> None:
    path = manifest.parents[5] / "store" / CELL / run / "curve.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    os.utime(path, (time, time))


def write_pack(manifest: Path, results: list[tuple[str, float | None]]) -> None:
    members = []
    for number, (status, bpd) in enumerate(results):
        folder = manifest.parents[5] / "store" / CELL / f"run-{number}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"status": status, "selection": {"bpd": bpd}}))
        members.append({"name": f"{CELL}/run-{number}"})
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"members": members}))


def test_title_is_round_and_cell():
    assert packs.title(MANIFEST) == "baselines digits/fixed/gumbel-softmax"


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([("finished", 3.5)], "1 run, best 3.500 bits/dim"),
        ([("finished", 3.5), ("finished", 3.25)], "2 runs, best 3.250 bits/dim"),
        ([("diverged", None), ("finished", 3.25)], "2 runs, 1 diverged, best 3.250 bits/dim"),
        ([("diverged", None)], "1 run, 1 diverged"),
    ],
)
def test_describes_a_finished_pack(manifest, results, expected):
    write_pack(manifest, results)

    assert packs.describe(manifest) == expected


def test_the_newest_curve_of_the_cell_tells(manifest):
    write_curve(manifest, "old", '{"epoch": 9, "selection_bpd": 1.0}\n', time=50)
    write_curve(manifest, "earlier", '{"epoch": 5, "selection_bpd": 2.0}\n', time=150)
    write_curve(
        manifest, "now", '{"epoch": 1, "selection_bpd": 4.0}\n{"epoch": 2, "selection_bpd": 3.5}\n{"epo', time=200
    )

    assert packs.newest_epoch(manifest, since=100) == "now  epoch 2  3.500 bits/dim"


def test_an_epoch_without_evaluation_tells_its_objective(manifest):
    write_curve(manifest, "now", '{"epoch": 3, "selection_bpd": null, "train_bpd": 3.75}\n', time=200)

    assert packs.newest_epoch(manifest, since=100) == "now  epoch 3  objective 3.750"


@pytest.mark.parametrize("text", ["", '{"epoch": 1, "selecti'])
def test_nothing_to_tell_before_the_first_epoch(manifest, text):
    assert packs.newest_epoch(manifest, since=100) == ""
    write_curve(manifest, "now", text, time=200)
    assert packs.newest_epoch(manifest, since=100) == ""
    assert packs.newest_epoch(manifest, since=300) == ""


def test_reads_only_the_end_of_a_long_curve(manifest):
    lines = "".join(json.dumps({"epoch": i, "selection_bpd": 3.0}) + "\n" for i in range(10_000))
    write_curve(manifest, "now", lines, time=200)

    assert packs.newest_epoch(manifest, since=100) == "now  epoch 9999  3.000 bits/dim"
