"""The executor, where snakemake-executor-plugin-kubernetes is installed."""

import dataclasses
import shlex
from typing import Any

from kubernetes.client import BatchV1Api, CoreV1Api
from snakemake_executor_plugin_kubernetes import Executor as WithoutSharedFiles
from snakemake_executor_plugin_kubernetes import ExecutorSettings
from snakemake_executor_plugin_kubernetes import common_settings as without_shared_files

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

common_settings = dataclasses.replace(
    without_shared_files,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    auto_deploy_default_storage_provider=False,
)


class _Jobs(BatchV1Api):
    """Jobs that end after so many seconds; None for as long as they need."""

    seconds: int | None = None

    def create_namespaced_job(self, namespace: str, body: Any, **keywords: Any) -> Any:
        body.spec.active_deadline_seconds = self.seconds
        return super().create_namespaced_job(namespace, body, **keywords)


class _Pods(CoreV1Api):
    """Pods whose containers are started once."""

    def read_namespaced_pod_log(self, name: str, namespace: str, **keywords: Any) -> Any:
        # The executor asks for the log of the container before, which a server refuses where there was none.
        return super().read_namespaced_pod_log(name, namespace, **keywords | {"previous": False})


class Executor(WithoutSharedFiles):
    """Jobs as pods that work in the checkout, each for as long as its ``runtime`` (minutes) says."""

    # The executor makes its clients anew whenever it has to log in again.
    @property
    def batchapi(self) -> _Jobs:
        """Client for jobs."""
        return self._jobs

    @batchapi.setter
    def batchapi(self, client: BatchV1Api) -> None:
        self._jobs = _Jobs(client.api_client)

    @property
    def kubeapi(self) -> _Pods:
        """Client for pods and secrets."""
        return self._pods

    @kubeapi.setter
    def kubeapi(self, client: CoreV1Api) -> None:
        self._pods = _Pods(client.api_client)

    def run_job(self, job: Any) -> None:
        runtime = job.resources.get("runtime")
        self.batchapi.seconds = None if runtime is None else round(60 * float(runtime))
        super().run_job(job)

    def get_job_exec_prefix(self, job: Any) -> str:
        return f"cd {shlex.quote(str(self.workflow.workdir_init))}"
