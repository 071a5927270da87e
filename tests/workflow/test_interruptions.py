"""Kills and Ctrl-C at any moment: the same command goes on and ends with the same numbers, bit for bit."""

import json
import os
import signal
from collections.abc import Iterator

import pytest
from tests.workflow.kills import PLACES, kill_studies
from tests.workflow.repository import LITERAL, LONG, Repository, wait_until

from silent_study.jobs.stopping import TimeLimit
from silent_study.training import checkpoint

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def fresh(tmp_path) -> Iterator[Repository]:
    repository = Repository.make(tmp_path / "repository", long=LONG)
    yield repository
    for process in repository.processes():  # of a test that failed
        process.kill()


def epochs_saved(repository):
    (folder,) = repository.results.glob("store/*/*/*/*.partial")
    return checkpoint.newest(folder)["epoch"]


def kill_training(repository, process):
    """Only the training process, as the kernel does when memory runs out."""
    repository.trainer().kill()
    output, code = repository.finish(process)
    assert code == 1
    assert "FAILED baselines digits/fixed" in output
    assert "Traceback" not in output


def kill_everything(repository, process):
    """Snakemake with all it has started, as a power cut does."""
    os.killpg(process.pid, signal.SIGKILL)
    assert repository.finish(process)[1] == -signal.SIGKILL


def press_control_c(repository, process):
    os.killpg(process.pid, signal.SIGINT)
    assert repository.finish(process)[1] != 0


def send_another_workflow_away(repository, process):
    """Two workflows do not work in one repository at once."""
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        output = repository.fail(*LITERAL)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    assert "no other Snakemake process" in output
    assert "clears the lock: snakemake --unlock" in output


def interrupt(repository, how, when, before=None, command=LITERAL):
    """Start a command and interrupt it when ``when`` epochs are trained, just after ``before``."""
    process = repository.start(*command)
    wait_until(lambda: repository.epochs_trained() >= when and repository.trainer(), process)
    if before is not None:
        before(repository, process)
    how(repository, process)
    wait_until(lambda: not repository.processes())  # the kernel may not be done with the killed ones yet
    # How far behind depends on how long the disk takes to save.
    assert epochs_saved(repository) >= 1


def unlock(repository):
    """What a user does whom Snakemake does not let in."""
    assert "clears the lock: snakemake --unlock" in repository.fail(*LITERAL)
    repository.run("snakemake", "--unlock")


def test_after_every_kind_of_interruption_the_same_command_goes_on(fresh, undisturbed):
    interrupt(fresh, kill_training, 5, before=send_another_workflow_away)
    interrupt(fresh, kill_everything, 15)
    unlock(fresh)
    interrupt(fresh, press_control_c, 25)

    fresh.run(*LITERAL)

    assert fresh.numbers() == undisturbed.numbers()
    assert fresh.runs() == undisturbed.runs()


REPRO = ("dvc", "repro")
IN_BACKGROUND = ("sh", "-c", 'trap "" INT; exec "$@"', "sh", *LITERAL)
"""As the shell of a script starts a command with ``&``: it ignores SIGINT."""

SIGNALLED = [
    (IN_BACKGROUND, ("snakemake",), signal.SIGINT),
    *((LITERAL, whom, number) for number in (signal.SIGTERM, signal.SIGHUP) for whom in (("snakemake",), None)),
    *((REPRO, None, number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
    *((REPRO, ("dvc",), number) for number in (signal.SIGTERM, signal.SIGHUP)),
    *((LITERAL, ("silent-gradients", "train"), number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
]


def send(repository, command, whom, number, when):
    """Send a signal to a process, or to the whole group, and check what it left."""

    def how(repository, process):
        victim = process.pid if whom is None else repository.process_of(*whom).pid
        (os.killpg if whom is None else os.kill)(victim, number)
        output, code = repository.finish(process)
        assert code != 0
        if whom == ("snakemake",):
            assert "stopped baselines digits/fixed; the same command goes on" in output
            assert "jobs done, 1 stopped" in output

    interrupt(repository, how, when, command=command)
    assert not any((repository.root / ".snakemake" / "locks").glob("*"))  # whoever comes next needs no --unlock


def test_a_signal_to_snakemake_in_the_background_stops_its_jobs(fresh, undisturbed):
    send(fresh, *SIGNALLED[0], 10)
    fresh.run(*LITERAL)
    assert fresh.numbers() == undisturbed.numbers()


@pytest.mark.slow
def test_a_time_limit_ends_jobs_and_not_the_workflow(fresh, undisturbed):
    """A third of what the training takes on this machine, and the reserve for a checkpoint."""
    (provenance,) = undisturbed.results.glob("store/*/*/*/*/provenance.json")
    seconds = json.loads(provenance.read_text())["seconds"]
    fresh.configure("long", execution={"time_limit": (TimeLimit.RESERVE + seconds / 3) / 60})
    output = fresh.run(*LITERAL)
    assert "stopped baselines digits/fixed; the same command goes on" in output
    assert fresh.numbers() == undisturbed.numbers()


@pytest.mark.slow
def test_signals_stop_everything_and_the_same_command_goes_on(fresh, undisturbed):
    for number, case in enumerate(SIGNALLED[1:]):
        send(fresh, *case, 4 + 4 * number)
    fresh.run(*LITERAL)
    assert fresh.numbers() == undisturbed.numbers()


@pytest.mark.slow
def test_a_study_killed_at_every_place_has_the_numbers_of_an_undisturbed_one(tmp_path):
    """``python -m tests.workflow.kills`` does the same in greater numbers."""
    account = kill_studies(tmp_path, 2 * len(PLACES), seed=0)

    assert account.failures == []
    assert {name for name, _ in account.hits} == set(PLACES)
    assert account.hits.total() == 2 * len(PLACES)
