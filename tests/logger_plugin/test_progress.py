"""The state of a running workflow, the estimate of the time left, and the results of packs from files written here."""

import json
from collections import Counter
from pathlib import Path

import pytest

from snakemake_logger_plugin_silent_gradients.progress import Job, Progress, pack_results


def job(rule: str, started: float) -> Job:
    return Job(rule=rule, wildcards=(), outputs=(Path("out"),), started=started)


def after(planned: dict[str, int], jobs: list[tuple[str, float, float | None]]) -> Progress:
    """The progress once jobs of rules started and ended; None where they are running."""
    progress = Progress(started=0.0, planned=Counter(planned))
    for number, (rule, start, end) in enumerate(jobs):
        progress.running[number] = job(rule, start)
        if end is not None:
            progress.finish(number, end)
    return progress


@pytest.mark.parametrize(
    ("planned", "jobs", "now", "left"),
    [
        pytest.param({"prepare": 1, "train": 2}, [], 1.0, None, id="nothing has finished"),
        # The time of a preparation is no estimate of the time of a training.
        pytest.param(
            {"prepare": 1, "train": 2}, [("prepare", 0.0, 1.0), ("train", 1.0, None)], 5.0, None, id="another rule"
        ),
        # Three jobs of 10 s, of which one has run for 4 s.
        pytest.param({"train": 4}, [("train", 0.0, 10.0), ("train", 10.0, None)], 14.0, 26.0, id="one by one"),
        pytest.param({"train": 6}, [("train", 0.0, 10.0)] * 2, 10.0, 4 * 10.0 / 2, id="two at once"),
        pytest.param(
            {"prepare": 1, "train": 2}, [("prepare", 0.0, 2.0), ("train", 2.0, 22.0)], 22.0, 20.0, id="each its own"
        ),
    ],
)
def test_the_estimate_of_the_time_left(planned, jobs, now, left):
    found = after(planned, jobs).seconds_left(now)
    assert found == (None if left is None else pytest.approx(left))


def test_a_wait_for_a_device_is_no_work(tmp_path):
    """Four packs share a device: they begin together, and each works for 10 s once the one before it has ended."""
    manifest, logs = Path("results/packs/seeds/a/b/0.json"), [tmp_path / f"{number}.log" for number in range(4)]
    progress = Progress(started=0.0, planned=Counter(train_pack=4))
    for number, log in enumerate(logs):
        waiting = f"waiting for a GPU; in use: 0\nwaiting for 0 ended after {10 * number} s\n"
        log.write_text(f"{waiting if number else ''}[1/8] a run\n")
        progress.running[number] = Job("train_pack", (), (manifest,), 0.0, log)
    for log in logs[2:]:
        log.write_text("waiting for a GPU; in use: 0\n")
    assert progress.finish(0, 10.0).seconds(10.0) == 10
    assert progress.finish(1, 20.0).seconds(20.0) == 10
    assert progress.seconds_left(20.0) == pytest.approx(20)


def test_jobs_that_a_checkpoint_adds_count():
    progress = after({"train": 1}, [("train", 0.0, 10.0)])
    progress.total = 4
    assert progress.seconds_left(10.0) == pytest.approx(30.0)


def test_a_job_that_fails_and_is_repeated_with_success_has_not_failed():
    progress = Progress(started=0.0)
    progress.running[1] = job("train", 0.0)
    assert progress.fail(1) is not None
    assert progress.failed == {1}
    progress.running[1] = job("train", 1.0)
    assert progress.finish(1, 2.0) is not None
    assert progress.failed == set()


def test_a_job_that_was_never_told_of():
    progress = Progress(started=0.0)
    assert progress.finish(5, 1.0) is None
    assert progress.fail(6) is None


@pytest.mark.parametrize(
    ("rule", "wildcards", "outputs", "name"),
    [
        ("prepare", ("digits",), ("data/x",), "prepare digits"),
        ("report", (), ("results/report.html", "b"), "report"),
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


def test_runs_are_counted_as_logs_grow_and_begin_again(tmp_path):
    log, manifest = tmp_path / "pack.log", Path("results/packs/seeds/a/b/0.json")
    progress = Progress(started=0.0, runs=4, trained={"before"})
    progress.running[1] = Job("train_pack", (), (manifest,), 0.0, log)
    assert progress.runs_done() == 1
    for text, done in (
        ("[1/3] trained a: 3.5 bits/dim\n[2/3] trai", 2),
        ("[1/3] trained a: 3.5 bits/dim\n[2/3] trained b: diverged in epoch 1\n", 3),
        ("[1/3] already trained a: 3.5 bits/dim\n", 3),
        ("[1/3] already trained a: 3.5 bits/dim\n[3/3] trained before: 3.5 bits/dim\n[3/3] trained c: 3 bits/dim\n", 4),
    ):
        log.write_text(text)
        assert progress.runs_done() == done
