"""The whole workflow on a real Slurm, in small: what jobs are granted, and what becomes of those that it ends.

On Debian or Ubuntu, as root: ``apt-get install --no-install-recommends slurm-wlm munge``.
"""

import importlib.util
import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.workflow import slurm
from tests.workflow.repository import LONG, TINY, Repository, wait_until

from silent_study.training import checkpoint

MISSING = slurm.missing() or (
    ""
    if importlib.util.find_spec("snakemake_executor_plugin_slurm")
    else "no snakemake-executor-plugin-slurm; pip install 'silent-gradients[slurm]'"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]

# This Slurm keeps no accounts, of which its status is asked by default.
WORKFLOW = ("snakemake", "--profile", "profiles/slurm", "--latency-wait", "10", "--retries", "0")
NO_ACCOUNTS = (
    *("--slurm-no-account", "--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"),
)


@dataclass(frozen=True)
class OnSlurm(Repository):
    """A repository whose programs find the cluster's commands first."""

    cluster: slurm.Slurm

    @property
    def prefix(self) -> tuple[str, ...]:
        return ()  # the cluster is reached by the loopback device

    @property
    def environment(self) -> dict[str, str]:
        own = super().environment
        return own | {"PATH": f"{self.cluster.commands}{os.pathsep}{own['PATH']}"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[slurm.Slurm]:
    with slurm.running(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


def trainings(cluster):
    """The trainings' jobs, by number."""
    jobs = {int(job["JobId"]): job for job in cluster.jobs()}
    return {number: job for number, job in sorted(jobs.items()) if "train_pack" in job["Comment"]}


def test_the_whole_workflow_runs_on_the_cluster(cluster, tmp_path):
    repository = OnSlurm(Repository.make(tmp_path / "repository", tiny=TINY).root, cluster)

    repository.run(*WORKFLOW, *NO_ACCOUNTS, "all")

    assert repository.runs() == repository.planned()
    assert (repository.results / "report.html").exists()
    jobs = trainings(cluster)
    assert len(jobs) == len(repository.packs())
    for job in jobs.values():
        assert job["JobState"] == "COMPLETED"
        # The defaults of a pace that was not measured; a pack is given the memory that it asks for.
        assert job["TimeLimit"] == "1-00:00:00"
        assert job["TresPerJob"] == "gres:gpu:1"
        assert job["MinMemoryNode"].endswith(("M", "G"))
    assert "Nothing to be done" in repository.run(*WORKFLOW, *NO_ACCOUNTS, "--dry-run", "all")


def cancel(cluster, repository, number):
    """As `scancel` by hand, or a queue of higher standing."""
    cluster.ask("scancel", str(number))


def let_time_run_out(cluster, repository, number):
    """The training hangs until Slurm ends the job."""
    os.kill(repository.trainer().pid, signal.SIGSTOP)
    cluster.ask("scontrol", "update", f"JobId={number}", "TimeLimit=1")


@pytest.mark.parametrize(("end", "state"), [(cancel, "CANCELLED"), (let_time_run_out, "TIMEOUT")])
def test_a_job_that_the_cluster_ended_goes_on_from_its_checkpoint(cluster, tmp_path, end, state):
    repository = OnSlurm(Repository.make(tmp_path / "repository", long=LONG).root, cluster)
    before = trainings(cluster)
    process = repository.start(*WORKFLOW, *NO_ACCOUNTS, "train")
    wait_until(lambda: repository.epochs_trained() >= 10 and repository.trainer(), process)
    number = max(trainings(cluster))

    end(cluster, repository, number)

    output, code = repository.finish(process)
    assert code == 1
    # The training may have written that it stopped before Slurm killed it.
    assert re.search("(FAILED|stopped) baselines digits/fixed", output)
    assert trainings(cluster)[number]["JobState"] == state
    (unfinished,) = repository.results.glob("store/*/*/*/*.partial")
    saved = checkpoint.newest(unfinished)["epoch"]
    assert saved >= 9
    curve = unfinished / "curve.jsonl"
    trained = curve.read_text().splitlines()[:saved]

    repository.run(*WORKFLOW, *NO_ACCOUNTS, "train")

    assert repository.runs() == repository.planned()
    (run,) = repository.results.glob("store/*/*/*/*/curve.jsonl")
    # What was trained before stands as it was written; times are in it, so that it was not trained again.
    assert run.read_text().splitlines()[:saved] == trained
    assert json.loads((run.parent / "result.json").read_text())["status"] == "finished"
    assert len(trainings(cluster)) == len(before) + 3  # the grid's pack twice, that of the seeds once
