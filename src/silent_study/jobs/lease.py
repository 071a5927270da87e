"""Leases of devices by lock files.

``snakemake --resources gpu=8`` only counts the jobs that want a GPU; it does not say which GPU a job gets, nor how many
there are. Here every training process takes an exclusive lock on one device and keeps the descriptor open. The kernel
drops the lock when the process ends, however it ends, so that nothing has to be cleaned up and no device stays taken.

GPUs are named by the UUIDs that nvidia-smi lists; the parts of a divided GPU (MIG) have UUIDs of their own.

Environment variables:
    CUDA_VISIBLE_DEVICES: the devices to choose from, UUIDs or indexes as nvidia-smi counts; empty means none.
    SILENT_GRADIENTS_LEASES: folder of the lock files, on a disk of this machine; by default one per user below /tmp,
        whatever TMPDIR is. Users who share a machine's devices may name one folder that all of them can write to.
    SILENT_GRADIENTS_DEVICES: a list of devices to believe in, for tests.

Under a batch system (`_BATCH_JOB`) the devices in sight are the job's own and are named relative to it, so that "0" of
two jobs on one node may be two devices. A job with one device or none is left as it is; a job with several shares them
out among its own processes, with lock files of its own. A container needs no such care: it has a /tmp of its own, and a
lease there costs nothing.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from silent_study.store.locks import try_lock

if TYPE_CHECKING:
    import torch

# Set by Slurm, PBS, LSF, HTCondor, Flux and OAR in every job, with a value of its own.
_BATCH_JOB = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "_CONDOR_SLOT", "FLUX_JOB_ID", "OAR_JOB_ID")
# The steps of one Slurm job have devices of their own, too.
_BATCH_STEP = "SLURM_STEP_ID"

# What people, Slurm and container runtimes write for no device.
_NO_DEVICES = ("", "-1", "none", "void", "nodevfiles")

# Processes with another TMPDIR must find the same locks. A home folder may be shared by machines, /tmp is not.
_PARENT = Path("/tmp")

# Seconds between two attempts: short beside a training, and rare enough to cost nothing.
_POLL_SECONDS = 0.3
NOTABLE_WAIT_SECONDS = 5.0


class LeaseError(RuntimeError):
    """No device can be leased; the message names the file or the variable and how to fix it."""


@dataclass
class Lease(AbstractContextManager["Lease"]):
    """A device that this process may use until `release`, or until it ends."""

    device: Literal["cuda", "cpu"]  # as torch names it; a leased GPU is the only one in sight, thus "cuda:0"
    name: str  # the GPU's UUID or "cpu-<slot>"; under a batch system as the job names its only device, or "cpu"
    descriptor: int | None = None  # holds the lock

    def release(self) -> None:
        """Let another process have the device; the second call does nothing. CUDA_VISIBLE_DEVICES stays as it is."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __exit__(self, *_: object) -> None:
        self.release()


def acquire() -> Lease:
    """Wait for a free device and keep it for this process.

    To be called before CUDA is initialised, best before torch is imported, since it sets CUDA_VISIBLE_DEVICES. Where
    there is no GPU, the machine's usable cores are shared out, so that eight jobs on two cores take turns instead of
    slowing each other down. The lease is to be kept for as long as the device is used.

    Raises ``LeaseError`` if the lock files cannot be made or opened, or a device in the environment does not exist.
    """
    devices, job = _devices(), _batch_job()
    if job is not None and len(devices) < 2:
        return Lease("cuda", devices[0]) if devices else Lease("cpu", "cpu")
    slots = [f"cpu-{index}" for index in range(_usable_cores())]
    name, descriptor = _lock_one(devices or slots, _lock_folder(job), "GPU" if devices else "CPU slot")
    os.environ["CUDA_VISIBLE_DEVICES"] = name if devices else ""
    return Lease("cuda" if devices else "cpu", name, descriptor)


@contextmanager
def leased_device() -> Iterator[torch.device]:
    """Wait for a device and yield it, with torch set up for it; raises ``LeaseError`` if there is none to be used."""
    began = time.monotonic()
    with acquire() as lease:
        # The display of the workflow reads this line of the log.
        if (waited := time.monotonic() - began) > NOTABLE_WAIT_SECONDS:
            print(f"waiting for {lease.name} ended after {waited:.0f} s", file=sys.stderr, flush=True)
        # Imported under the lease: torch sees only the leased device, and waiting processes stay small.
        import torch

        from silent_study.training.device import configure_torch

        configure_torch()
        if lease.device == "cuda" and not torch.cuda.is_available():
            build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
            found = f"GPU {lease.name}: torch {torch.__version__}, {build}, finds no usable GPU"
            raise LeaseError(f"{found}; install a driver, or set {_variable()}= (empty) to use the CPU")
        yield torch.device(lease.device)


def _variable() -> str:
    """Return the environment variable that lists the devices."""
    return "SILENT_GRADIENTS_DEVICES" if "SILENT_GRADIENTS_DEVICES" in os.environ else "CUDA_VISIBLE_DEVICES"


def _devices() -> list[str]:
    """Return the devices to choose from: by UUID, or by the given name where nvidia-smi lists no such index."""
    visible = os.environ.get(_variable())
    if visible is None:
        return [uuid for gpu in _ask_nvidia_smi("no GPU is used") for uuid in gpu]
    names = _read_list(visible)
    # A batch system's indexes are relative to its job.
    relative = _variable() != "CUDA_VISIBLE_DEVICES" or _batch_job() is not None
    if relative or not any(name.isdigit() for name in names):
        return names
    # CUDA takes the index of a divided GPU for its first part.
    by_index = {str(index): gpu[0] for index, gpu in enumerate(_ask_nvidia_smi("indexes are not translated to UUIDs"))}
    if by_index and (unknown := [name for name in names if name.isdigit() and name not in by_index]):
        listed = f"nvidia-smi lists {', '.join(by_index)}"
        raise LeaseError(f"CUDA_VISIBLE_DEVICES={visible}: no GPU {', '.join(unknown)}; {listed}")
    return [by_index.get(name, name) for name in names]


def _read_list(text: str) -> list[str]:
    """Read a list of devices as CUDA does: it ends at the first name that can be no device."""
    names: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if not re.match(r"\d+$|GPU-|MIG-", name):
            break
        names.append(name)
    if not names and text.strip().lower() not in _NO_DEVICES:
        expected = "indexes or UUIDs, separated by commas; nothing for the CPU; not set for all GPUs"
        raise LeaseError(f"{_variable()}={text}: expected {expected}")
    return names


def _ask_nvidia_smi(otherwise: str) -> list[list[str]]:
    """Return the UUIDs of every GPU, or of its parts (MIG); print ``otherwise`` with the reason where nvidia-smi fails.

    No GPUs are returned where nvidia-smi is missing or fails.
    """
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
    except FileNotFoundError:
        return []
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stdout", None) or str(error)
        print(f"nvidia-smi is there but fails, so that {otherwise}: {str(reason).strip()}", file=sys.stderr)
        return []
    gpus: list[list[str]] = []
    for line in listing.splitlines():
        if gpu := re.match(r"GPU \d+:.*\(UUID:\s*(GPU-[^)]+)\)", line):
            gpus.append([gpu[1]])
        elif part := re.match(r"\s+MIG .*\(UUID:\s*(MIG-[^)]+)\)", line):
            gpus[-1].append(part[1])
    return [parts or [whole] for whole, *parts in gpus]


def _batch_job() -> str | None:
    for variable in _BATCH_JOB:
        if job := os.environ.get(variable):
            return "-".join(filter(None, [variable, job, os.environ.get(_BATCH_STEP)]))
    return None


def _usable_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A container may see every core of its host and be allowed the time of only a few.
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _lock_folder(job: str | None) -> Path:
    chosen = os.environ.get("SILENT_GRADIENTS_LEASES")
    folder = Path(chosen) if chosen else _PARENT / f"silent-gradients-leases-{os.getuid()}"
    advice = "set SILENT_GRADIENTS_LEASES to a folder that you can write to, on a disk of this machine"
    try:
        folder.mkdir(mode=0o777 if chosen else 0o700, parents=True, exist_ok=True)
        # Everybody can write to /tmp: a folder of this name that belongs to another user is an accident or a trap.
        if not chosen and folder.stat().st_uid != os.getuid():
            raise LeaseError(f"the folder of the device locks, {folder}, belongs to another user; {advice}")
        if job is not None:
            folder /= _file_name(job)
            folder.mkdir(exist_ok=True)
    except OSError as error:
        raise LeaseError(f"cannot make the folder of the device locks, {folder}: {error.strerror}; {advice}") from error
    return folder


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def _lock_one(devices: Sequence[str], folder: Path, kind: str) -> tuple[str, int]:
    """Wait until one of the devices can be locked; return it with the descriptor that holds the lock.

    The lock file holds the number of the process that locked it last.
    """
    locks = {device: folder / f"{_file_name(device)}.lock" for device in devices}
    announced = False
    while True:
        for device, path in locks.items():
            try:
                descriptor = try_lock(path)
            except OSError as error:
                advice = "set SILENT_GRADIENTS_LEASES to another folder"
                raise LeaseError(f"cannot lock {path}: {error.strerror}; {advice}") from error
            if descriptor is not None:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return device, descriptor
        if not announced:
            held = ", ".join(f"{device} (process {path.read_text()})" for device, path in locks.items())
            print(f"waiting for a {kind}; in use: {held} (locks in {folder})", file=sys.stderr, flush=True)
            announced = True
        # Jitter, lest processes that began together go on trying together.
        time.sleep(_POLL_SECONDS * random.uniform(0.5, 1.5))
