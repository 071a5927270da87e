"""What is said of packs, from files written here."""

import json
from pathlib import Path

import pytest

from snakemake_logger_plugin_silent_gradients import packs

MANIFEST = Path("results/packs/baselines/digits/fixed/gumbel-softmax/3-77ab.json")
CELL = "digits/fixed/gumbel-softmax"


@pytest.fixture
def manifest(tmp_path):
    return tmp_path / MANIFEST


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


def test_the_last_whole_line_of_a_log_is_the_news(tmp_path):
    log = tmp_path / "pack.log"
    assert packs.newest_line(log) == ""
    log.write_text("[1/3] cut sho")
    assert packs.newest_line(log) == ""
    log.write_text("[1/3] trained a\n[2/3] trained b\n[3/3] cut sho")
    assert packs.newest_line(log) == "[2/3] trained b"


def test_reads_only_the_end_of_a_long_log(tmp_path):
    log = tmp_path / "pack.log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert packs.newest_line(log) == "line 99999"
