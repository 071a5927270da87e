"""The profile for Kubernetes: what is asked of a cluster, and the whole workflow on a small part of one.

There is no cluster here: an API server on the loopback device takes what the executor sends, and runs a pod's command
as a process of this machine (``kubernetes_server.py``).
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.workflow import kubernetes_server
from tests.workflow.repository import CHECKOUT, LONG, TINY, Repository, wait_until

from silent_gradients.training import checkpoint

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not importlib.util.find_spec("snakemake_executor_plugin_kubernetes"),
        reason="no snakemake-executor-plugin-kubernetes; pip install 'silent-gradients[kubernetes]'",
    ),
]

WORKFLOW = ("snakemake", "--profile", "profiles/kubernetes", "--latency-wait", "10")
QUICKLY = ("--seconds-between-status-checks", "1")


@dataclass(frozen=True)
class OnKubernetes(Repository):
    """A repository whose pods see it under its own path."""

    config: Path

    @property
    def prefix(self) -> tuple[str, ...]:
        return ()  # the server is reached by the loopback device

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"KUBECONFIG": str(self.config)}

    @property
    def volume(self) -> tuple[str, str]:
        return ("--kubernetes-shared-persistent-volumes", f"disk:{self.root.parent}")


@pytest.fixture
def cluster(tmp_path) -> Iterator[tuple[kubernetes_server.Cluster, Path]]:
    # As the image has it: the programs, and nothing of the checkout.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    image = {"PATH": path, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "SILENT_GRADIENTS_DEVICES": ""}
    image["SILENT_GRADIENTS_LEASES"] = str(tmp_path / "leases")  # a pod has a temporary folder of its own
    with kubernetes_server.running(tmp_path, image) as running:
        yield running


def trainings(cluster):
    """What was asked for the trainings: job, container."""
    jobs = [(name, job["spec"]) for name, job in cluster.jobs.items()]
    found = [(name, spec, spec["template"]["spec"]["containers"][0]) for name, spec in jobs]
    return [entry for entry in found if "train_pack" in entry[2]["args"][1]]


def test_the_profile_is_read_and_plans_as_without_it(repository):
    (repository.root / "params.yaml").write_text("preset: tiny\nseeds: [0, 1, 2]\n")
    here = repository.run("snakemake", "--cores", "8", "-n", "all")
    there = repository.run(*WORKFLOW, "-n", "all")

    def counted(output):
        return dict(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE))

    assert counted(there) == counted(here) != {}


def test_without_the_extra_the_executor_says_what_to_install(tmp_path):
    """And Snakemake, which imports it always, works as ever."""
    code = """
import importlib.util, sys
find, hidden = importlib.util.find_spec, "snakemake_executor_plugin_kubernetes"
importlib.util.find_spec = lambda name, *rest: None if name == hidden else find(name, *rest)
import snakemake_executor_plugin_kubernetes_shared as plugin
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
ExecutorPluginRegistry().get_plugin("kubernetes-shared")
try:
    plugin.Executor(None, None)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'silent-gradients[kubernetes]'" in run.stderr


def test_the_role_allows_all_that_the_executor_may_ask():
    documents = list(yaml.safe_load_all((CHECKOUT / "profiles/kubernetes/cluster.yaml").read_text()))
    (role,) = (document for document in documents if document["kind"] == "Role")
    allowed = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == {
        ("batch", "jobs", "create"),
        ("batch", "jobs", "delete"),
        ("batch", "jobs/status", "get"),
        ("", "pods", "list"),
        ("", "pods", "delete"),
        ("", "pods/log", "get"),
        ("", "secrets", "create"),
        ("", "secrets", "delete"),
    }
    # Names that belong together, here and in the profile.
    profile = yaml.safe_load((CHECKOUT / "profiles/kubernetes/profile.yaml").read_text())
    claim, *_, pod = documents
    (volume,) = profile["kubernetes-shared-persistent-volumes"]
    name, mounted = volume.split(":")
    assert claim["metadata"]["name"] == name == pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (container,) = pod["spec"]["containers"]
    assert container["volumeMounts"][0]["mountPath"] == mounted
    assert container["image"] == profile["container-image"]


@pytest.mark.slow
def test_the_whole_workflow_runs_in_pods(cluster, tmp_path):
    cluster, config = cluster
    repository = OnKubernetes(Repository.make(tmp_path / "repository", tiny=TINY).root, config)

    repository.run(*WORKFLOW, *repository.volume, *QUICKLY, "all")

    assert repository.runs() == repository.planned()
    assert (repository.results / "report.html").exists()
    found = trainings(cluster)
    assert len(found) == len(repository.packs())
    for _, spec, container in found:
        # A day and 8 GB, where no pace was measured.
        assert spec["activeDeadlineSeconds"] == 24 * 3600
        assert spec["backoffLimit"] == 0
        asked = container["resources"]
        assert asked["limits"] == {"cpu": "1000m", "memory": "8192M", "nvidia.com/gpu": "1"} | _disk(asked["limits"])
        assert asked["requests"] == {"cpu": "950m", "memory": "8192M", "nvidia.com/gpu": "1"} | _disk(asked["limits"])
    gpus = [job for job in cluster.jobs.values() if "nvidia.com/gpu" in str(job)]
    assert len(gpus) == len(found) < len(cluster.jobs)  # the other jobs ask for none
    for job in cluster.jobs.values():
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == "silent-gradients:latest"
        assert {"mountPath": str(tmp_path), "name": "disk"} in container["volumeMounts"]
        assert {"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}} in pod["volumes"]
        assert container["args"][1].startswith(f"cd {repository.root} && export PYTHONPATH=src && python -m snakemake ")
    assert cluster.secrets == set()  # nothing is left behind
    assert "Nothing to be done" in repository.run(*WORKFLOW, *repository.volume, "--dry-run", "--", "all")


def _disk(limits):
    """What Snakemake reckons of a job's files."""
    return {key: value for key, value in limits.items() if key == "ephemeral-storage"}


@pytest.mark.slow
def test_a_pod_that_was_ended_goes_on_from_its_checkpoint(cluster, tmp_path):
    cluster, config = cluster
    repository = OnKubernetes(Repository.make(tmp_path / "repository", long=LONG).root, config)
    process = repository.start(*WORKFLOW, *repository.volume, *QUICKLY, "train")
    wait_until(lambda: repository.epochs_trained() >= 10 and trainings(cluster), process)

    ((name, *_),) = trainings(cluster)
    cluster.end(name)

    output, code = repository.finish(process)
    assert code == 1
    assert "FAILED baselines digits/fixed" in output
    (unfinished,) = repository.results.glob("store/*/*/*/*.partial")
    saved = checkpoint.newest(unfinished)["epoch"]
    assert saved >= 9
    trained = (unfinished / "curve.jsonl").read_text().splitlines()[:saved]

    repository.run(*WORKFLOW, *repository.volume, *QUICKLY, "train")

    (run,) = repository.results.glob("store/*/*/*/*/curve.jsonl")
    assert run.read_text().splitlines()[:saved] == trained
    assert len(trainings(cluster)) == 3  # the grid's pack twice, that of the seeds once
    rules = yaml.safe_load_all((CHECKOUT / "profiles/kubernetes/cluster.yaml").read_text())
    (role,) = (document for document in rules if document["kind"] == "Role")
    for group, resource, verb in cluster.asked:
        assert any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for rule in role["rules"]
        ), (group, resource, verb)
