"""A machine without a batch system, with lock files of its own and the nvidia-smi that a test provides."""

import os
from pathlib import Path

import pytest

from silent_study.jobs import lease

VARIABLES = (
    *("SLURM_JOB_ID", "SLURM_STEP_ID", "PBS_JOBID", "LSB_JOBID", "_CONDOR_SLOT", "FLUX_JOB_ID", "OAR_JOB_ID"),
    *("SILENT_GRADIENTS_DEVICES", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    for variable in VARIABLES:
        # Set first, so that what `acquire` writes to os.environ is undone as well.
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setenv("SILENT_GRADIENTS_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("PYTHONPATH", str(Path(lease.__file__).parents[2]))


@pytest.fixture
def provide_nvidia_smi(monkeypatch, tmp_path):
    """A function that makes a script the nvidia-smi of the machine."""

    def provide(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return provide
