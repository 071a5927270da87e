"""The state of a running workflow, and the guess at the time left."""

from pathlib import Path

import pytest

from snakemake_logger_plugin_silent_gradients.progress import Job, Progress


def job(rule: str, started: float) -> Job:
    return Job(rule=rule, wildcards=(), outputs=(Path("out"),), started=started)


def test_no_guess_without_anything_to_guess_from():
    progress = Progress(started=0.0)
    progress.plan({"prepare": 1, "train": 2})
    assert progress.seconds_left(1.0) is None

    progress.start(1, job("prepare", 0.0))
    progress.finish(1, 1.0)
    progress.start(2, job("train", 1.0))
    # How long a training takes is not known from how long the preparation took.
    assert progress.seconds_left(5.0) is None


def test_one_after_the_other():
    progress = Progress(started=0.0)
    progress.plan({"train": 4})
    progress.start(1, job("train", 0.0))
    progress.finish(1, 10.0)
    progress.start(2, job("train", 10.0))

    # Three jobs of 10 s, of which one has run for 4 s.
    assert progress.seconds_left(14.0) == pytest.approx(26.0)


def test_two_at_once_take_half_the_time():
    progress = Progress(started=0.0)
    progress.plan({"train": 6})
    for number in (1, 2):
        progress.start(number, job("train", 0.0))
    for number in (1, 2):
        progress.finish(number, 10.0)

    assert progress.seconds_left(10.0) == pytest.approx(4 * 10.0 / 2)


def test_rules_have_their_own_duration():
    progress = Progress(started=0.0)
    progress.plan({"prepare": 1, "train": 2})
    progress.start(1, job("prepare", 0.0))
    progress.finish(1, 2.0)
    progress.start(2, job("train", 2.0))
    progress.finish(2, 22.0)

    assert progress.seconds_left(22.0) == pytest.approx(20.0)


def test_jobs_that_a_checkpoint_adds_count():
    progress = Progress(started=0.0)
    progress.plan({"train": 1})
    progress.start(1, job("train", 0.0))
    progress.finish(1, 10.0)
    progress.total = 4

    assert progress.seconds_left(10.0) == pytest.approx(30.0)


def test_a_job_that_fails_and_is_repeated_with_success_has_not_failed():
    progress = Progress(started=0.0)
    progress.start(1, job("train", 0.0))
    assert progress.fail(1) is not None
    assert progress.failed == {1}

    progress.start(1, job("train", 1.0))
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
        ("report", (), ("results/report.html", "b"), "report results/report.html"),
        ("all", (), (), "all"),
        ("train_pack", ("x",), ("results/packs/seeds/a/b/c/0-1.json",), "seeds a/b/c"),
    ],
)
def test_names(rule, wildcards, outputs, name):
    assert Job(rule, wildcards, tuple(map(Path, outputs)), 0.0).name == name
