"""Which device a training process may use, settled between the processes of one machine by lock files.

``snakemake --resources gpu=8`` only counts the jobs that want a GPU; it does not say which GPU a job gets, nor how many
there are. Here every training process takes an exclusive lock on one device and keeps the descriptor open. The kernel
drops the lock when the process ends, however it ends, so that nothing has to be cleaned up and no device stays taken.

A device has several names: an index, a UUID, for a part of a divided GPU (MIG) a UUID of its own. Processes that were
told different names of one device must not have it at once, so that a lease locks every name that nvidia-smi knows.

Environment variables:
    CUDA_VISIBLE_DEVICES: the devices to choose from, as CUDA reads it (indexes, UUIDs, MIG names); empty means none.
    CUDA_DEVICE_ORDER: set to PCI_BUS_ID, as nvidia-smi counts, unless it is set already. Whoever wants another order,
        in which an index may be another device, names devices by their UUIDs.
    SILENT_GRADIENTS_LEASES: folder of the lock files, on a disk of this machine; by default one per user in the
        temporary folder. Users who share a machine's devices may name one folder that all of them can write to.
    SILENT_GRADIENTS_DEVICES: a list of devices to believe in, for tests.

Under a batch system (`_BATCH_JOB`) the devices in sight are the job's own and are named relative to it, so that "0" of
two jobs on one node may be two devices. A job with one device or none is left as it is; a job with several shares them
out among its own processes, with lock files of its own. A container needs no such care: it has a
temporary folder of its own, and a lease there costs nothing.
"""

import fcntl
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Literal

# Set by Slurm, PBS, LSF, HTCondor, Flux and OAR in every job, with a value of its own.
_BATCH_JOB = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "_CONDOR_SLOT", "FLUX_JOB_ID", "OAR_JOB_ID")
# The steps of one Slurm job have devices of their own, too.
_BATCH_STEP = "SLURM_STEP_ID"

# Seconds between two looks at the locks: short enough not to matter beside a training, long enough not to cost
# anything.
_POLL_SECONDS = 0.3


class LeaseError(RuntimeError):
    """The lock files cannot be used; the message says which and what to do."""


class Lease(AbstractContextManager["Lease"]):
    """A device that this process may use until `release`, or until it ends.

    Attributes:
        device: "cuda" or "cpu", as torch names it. A leased GPU is the only one in sight, thus "cuda:0".
        name: the device as the machine knows it ("3", "GPU-...", "MIG-...") or "cpu-<slot>"; "cpu" under a batch
            system.
    """

    def __init__(self, device: Literal["cuda", "cpu"], name: str, descriptors: Sequence[int] = ()) -> None:
        self.device = device
        self.name = name
        self._descriptors = list(descriptors)

    def release(self) -> None:
        """Let another process have the device; does nothing the second time. CUDA_VISIBLE_DEVICES stays as it is."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"Lease({self.device!r}, {self.name!r})"


def acquire(threads: int = 1) -> Lease:
    """Wait for a free device and keep it for this process.

    To be called before CUDA is initialised, best before torch is imported, since it chooses by CUDA_VISIBLE_DEVICES.
    Where there is no GPU, the machine's usable cores are shared out in slots of ``threads`` cores, so that eight jobs
    on two cores take turns instead of slowing each other down.

    Args:
        threads: CPU threads that the process will use; counts only where there is no GPU.

    Returns:
        The lease; keep it for as long as the device is used.

    Raises:
        LeaseError: the lock files cannot be made or opened.
        ValueError: ``threads`` is less than one.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    named = _named_devices()
    known = [] if named == [] else _ask_nvidia_smi("no GPU is used" if named is None else "no other names are known")
    devices = [names[0] for names in known] if named is None else named
    job = _batch_job()
    if job is not None and len(devices) < 2:
        return Lease("cuda", devices[0]) if devices else Lease("cpu", "cpu")

    folder = _lock_folder(job)
    if devices:
        name, descriptors = _lock_one(_with_all_names(devices, known), folder, what="GPU")
        os.environ["CUDA_VISIBLE_DEVICES"] = name
        # nvidia-smi numbers the devices by their place on the bus, CUDA by default the fastest first.
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        return Lease("cuda", name, descriptors)
    slots = [f"cpu-{index}" for index in range(max(1, _usable_cores() // threads))]
    name, descriptors = _lock_one({slot: [slot] for slot in slots}, folder, what="CPU slot")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return Lease("cpu", name, descriptors)


def _named_devices() -> list[str] | None:
    """The devices to choose from; None where nothing names any."""
    for variable in ("SILENT_GRADIENTS_DEVICES", "CUDA_VISIBLE_DEVICES"):
        if variable in os.environ:
            return _read_list(os.environ[variable])
    return None


def _read_list(text: str) -> list[str]:
    """Read a list of devices as CUDA does: it ends at the first name that can be no device."""
    names: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if not re.match(r"\d+$|GPU-|MIG-", name):
            break
        names.append(name)
    return names


def _ask_nvidia_smi(otherwise: str) -> list[list[str]]:
    """The names of each device, the one to tell CUDA first; ``otherwise`` says what follows where the driver fails."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
    except FileNotFoundError:
        return []
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stdout", None) or str(error)
        print(f"nvidia-smi is there but fails, so that {otherwise}: {str(reason).strip()}", file=sys.stderr)
        return []
    return _read_listing(listing)


def _read_listing(listing: str) -> list[list[str]]:
    """Read ``nvidia-smi -L``; a divided GPU (MIG) counts as its parts, of which a process can use only one.

    CUDA takes the index or the UUID of a divided GPU for its first part.
    """
    gpus: list[list[list[str]]] = []
    for line in listing.splitlines():
        if gpu := re.match(r"GPU (\d+):.*\(UUID:\s*(GPU-[^)]+)\)", line):
            gpus.append([[gpu[1], gpu[2]]])
        elif part := re.match(r"\s+MIG .*\(UUID:\s*(MIG-[^)]+)\)", line):
            gpus[-1].append([part[1]])
    devices: list[list[str]] = []
    for whole, *parts in gpus:
        if parts:
            parts[0] += whole
        devices += parts or [whole]
    return devices


def _with_all_names(devices: Sequence[str], known: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Each device's name, as it was given, with every name that it is to be locked by."""
    found = {}
    for device in devices:
        if device.isdigit():
            same = [names for names in known if device in names]
        else:  # CUDA takes the beginning of a UUID for the whole, where it is that of one device alone
            same = [names for names in known if any(name.startswith(device) for name in names)]
        names = same[0] if len(same) == 1 else []
        found[device] = sorted({device, *names})
    return found


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
    folder = Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"silent-gradients-leases-{os.getuid()}"
    advice = "set SILENT_GRADIENTS_LEASES to a folder that you can write to, on a disk of this machine"
    try:
        folder.mkdir(mode=0o777 if chosen else 0o700, parents=True, exist_ok=True)
        # In a temporary folder that everybody writes to, somebody else's folder of this name is an accident or a trap.
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


def _lock_one(devices: Mapping[str, Sequence[str]], folder: Path, *, what: str) -> tuple[str, list[int]]:
    """Wait until all names of one of ``devices`` can be locked; returns it with the descriptors that hold the locks."""
    announced = False
    while True:
        for device, names in devices.items():
            descriptors = _try_locks([folder / f"{_file_name(name)}.lock" for name in names])
            if descriptors:
                return device, descriptors
        if not announced:
            print(f"waiting for a {what}: {', '.join(devices)} in use (locks in {folder})", file=sys.stderr, flush=True)
            announced = True
        # Jitter, lest processes that began together go on asking together.
        time.sleep(_POLL_SECONDS * random.uniform(0.5, 1.5))


def _try_locks(paths: Sequence[Path]) -> list[int]:
    """Lock all of the files or none; returns the descriptors that hold the locks."""
    descriptors: list[int] = []
    for path in paths:
        descriptor = _try_lock(path)
        if descriptor is None:
            for held in descriptors:
                os.close(held)
            return []
        descriptors.append(descriptor)
    return descriptors


def _try_lock(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise LeaseError(
            f"cannot open the device lock {path}: {error.strerror}; set SILENT_GRADIENTS_LEASES to another folder"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise LeaseError(f"the disk of {path} knows no file locks: {error.strerror}") from error
    # Some systems clear old files out of the temporary folder; a lock in use must not look old.
    os.utime(descriptor)
    return descriptor
