"""What stands in the executor's place where it is not installed: it says how to install it."""

from dataclasses import dataclass
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

common_settings = CommonSettings(non_local_exec=True, implies_no_shared_fs=False, job_deploy_sources=False)


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """No settings."""


class Executor(RemoteExecutor):
    """Refuses to start."""

    def __init__(self, *_arguments: Any, **_keywords: Any) -> None:
        raise WorkflowError("the executor for Kubernetes is not installed: pip install 'silent-gradients[kubernetes]'")

    def run_job(self, job: Any) -> None:
        raise NotImplementedError

    def check_active_jobs(self, active_jobs: Any) -> Any:
        raise NotImplementedError

    def cancel_jobs(self, active_jobs: Any) -> None:
        raise NotImplementedError
