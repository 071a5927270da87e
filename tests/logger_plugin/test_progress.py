"""The state of a running workflow, and the results of packs from files written here."""

import json
from pathlib import Path

import pytest

from snakemake_logger_plugin_silent_gradients.progress import Job, Progress, pack_results


def job(rule: str, started: float) -> Job:
    return Job(rule=rule, wildcards=(), outputs=(Path("out"),), started=started)


def test_a_job_that_fails_and_is_repeated_with_success_has_not_failed():
    progress = Progress(started=0.0)
    progress.running[1] = job("train", 0.0)
    assert progress.fail(1) is not None
    assert progress.failed == {1}
    progress.running[1] = job("train", 1.0)
    assert progress.finish(1) is not None
    assert progress.failed == set()


def test_a_job_that_was_never_told_of():
    progress = Progress(started=0.0)
    assert progress.finish(5) is None
    assert progress.fail(6) is None


@pytest.mark.parametrize(
    ("rule", "wildcards", "outputs", "name"),
    [
        ("prepare", ("digits",), ("data/x",), "prepare digits"),
        ("report", (), ("results/report.html", "b"), "report results/report.html"),
        ("all", (), (), "all"),
        ("train_pack", ("x",), ("results/packs/seeds/a/b/c/0-1.json",), "seeds a/b/c"),
    ],
)
def test_names(rule, wildcards, outputs, name):
    assert Job(rule, wildcards, tuple(map(Path, outputs)), 0.0).name == name


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
    assert pack_results(manifest) == expected
