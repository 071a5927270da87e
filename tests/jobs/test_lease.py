"""A device goes to one process at a time, and comes back whatever happens to that process."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from silent_study.jobs import lease as lease_module
from silent_study.jobs.lease import LeaseError, acquire, leased_device

pytestmark = pytest.mark.usefixtures("machine")

# Takes a lease, says which, and holds it until its standard input is closed.
HOLDER = """
import os, sys
from silent_study.jobs.lease import acquire
lease = acquire()
print(lease.device, lease.name, "CVD=" + os.environ.get("CUDA_VISIBLE_DEVICES", "unset"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start():
    holders: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> subprocess.Popen[str]:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        holders.append(holder)
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def said(holder: subprocess.Popen[str]) -> list[str]:
    assert holder.stdout is not None
    return holder.stdout.readline().split()


def heard(holder: subprocess.Popen[str]) -> str:
    assert holder.stderr is not None
    return holder.stderr.readline()


def test_processes_get_different_devices(start):
    holders = [start(SILENT_GRADIENTS_DEVICES="0,1,2") for _ in range(3)]

    assert sorted(said(holder) for holder in holders) == [["cuda", i, f"CVD={i}"] for i in "012"]


def test_a_process_too_many_waits_and_says_so_once(start):
    first = start(SILENT_GRADIENTS_DEVICES="0")
    said(first)
    second = start(SILENT_GRADIENTS_DEVICES="0")

    assert heard(second).startswith(f"waiting for a GPU; in use: 0 (process {first.pid})")
    assert second.poll() is None
    first.communicate("")
    assert said(second) == ["cuda", "0", "CVD=0"]
    assert second.communicate("")[1] == ""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_gives_its_device_back(start, end):
    first = start(SILENT_GRADIENTS_DEVICES="0")
    said(first)
    second = start(SILENT_GRADIENTS_DEVICES="0")
    heard(second)

    first.send_signal(end)

    assert said(second) == ["cuda", "0", "CVD=0"]


def test_a_program_started_by_the_holder_does_not_hold_the_device(monkeypatch):
    monkeypatch.setenv("SILENT_GRADIENTS_DEVICES", "0")
    lease = acquire()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        lease.release()
        with acquire() as again:
            assert again.name == "0"
        child.kill()


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("4,6", ["4", "6"]),
        (" 2 , 3", ["2", "3"]),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"]),
        ("MIG-3f9c2a,MIG-77aa", ["MIG-3f9c2a", "MIG-77aa"]),
        ("1,-1,2", ["1"]),
    ],
)
def test_chooses_from_the_visible_devices_in_turn(monkeypatch, tmp_path, visible, names):
    monkeypatch.setenv("PATH", str(tmp_path))  # without nvidia-smi indexes stay indexes
    with ExitStack() as held:
        for name in names:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
            lease = held.enter_context(acquire())
            assert (lease.device, lease.name) == ("cuda", name)
            assert os.environ["CUDA_VISIBLE_DEVICES"] == name


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "none"])
def test_no_visible_device_means_the_cpu(monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    with acquire() as lease:
        assert (lease.device, lease.name) == ("cpu", "cpu-0")
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-1111)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736)
  MIG 1g.5gb      Device  1: (UUID: MIG-a28ad590)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-aa11-2222)
"""


@pytest.fixture
def nvidia_smi(provide_nvidia_smi):
    provide_nvidia_smi(f"cat <<'END'\n{LISTING}END")


@pytest.mark.usefixtures("nvidia_smi")
def test_asks_nvidia_smi_and_counts_the_parts_of_a_divided_gpu(monkeypatch):
    with ExitStack() as held:
        for name in ("MIG-c7384736", "MIG-a28ad590", "GPU-aa11-2222"):
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            assert held.enter_context(acquire()).name == name


@pytest.mark.usefixtures("nvidia_smi")
@pytest.mark.parametrize(
    ("index", "uuid"),
    [("1", "GPU-aa11-2222"), ("0", "MIG-c7384736")],  # CUDA takes the index of a divided GPU for its first part
)
@pytest.mark.parametrize("index_first", [True, False])
def test_an_index_and_its_uuid_are_one_device(index, uuid, index_first, start):
    first, second = (index, uuid) if index_first else (uuid, index)
    holder = start(CUDA_VISIBLE_DEVICES=first)
    assert said(holder) == ["cuda", uuid, f"CVD={uuid}"]
    waiting = start(CUDA_VISIBLE_DEVICES=second)
    assert heard(waiting).startswith(f"waiting for a GPU; in use: {uuid} (process {holder.pid})")
    assert waiting.poll() is None

    holder.kill()

    assert said(waiting) == ["cuda", uuid, f"CVD={uuid}"]


@pytest.mark.usefixtures("nvidia_smi")
@pytest.mark.parametrize(
    ("visible", "message"),
    [
        ("7", "no GPU 7; nvidia-smi lists 0, 1"),
        ("0,2", "no GPU 2"),
        ("all", "CUDA_VISIBLE_DEVICES=all: expected indexes or UUIDs"),
    ],
)
def test_a_device_that_does_not_exist_is_refused(monkeypatch, visible, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(LeaseError, match=message):
        acquire()


def test_a_named_gpu_without_a_driver_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SILENT_GRADIENTS_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = r"GPU 0: torch .* finds no usable GPU; .* SILENT_GRADIENTS_DEVICES= "
    with pytest.raises(LeaseError, match=message), leased_device():
        pass


BROKEN = "echo 'NVML: mismatch'; exit 18"


@pytest.mark.parametrize(
    ("script", "visible", "device", "message"),
    [
        (BROKEN, "3", ("cuda", "3"), "so that indexes are not translated to UUIDs: NVML: mismatch\n"),
        (BROKEN, None, ("cpu", "cpu-0"), "so that no GPU is used: NVML: mismatch\n"),
        (None, None, ("cpu", "cpu-0"), ""),
    ],
)
def test_without_a_driver_a_named_device_or_the_cpu_is_used(
    monkeypatch, tmp_path, provide_nvidia_smi, capsys, script, visible, device, message
):
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        provide_nvidia_smi(script)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    with acquire() as lease:
        assert (lease.device, lease.name) == device
    assert capsys.readouterr().err == (message and f"nvidia-smi is there but fails, {message}")


def test_shares_the_cores_out(monkeypatch):
    assert 1 <= lease_module._usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(lease_module, "_usable_cores", lambda: 3)

    leases = [acquire() for _ in range(3)]
    assert [lease.name for lease in leases] == ["cpu-0", "cpu-1", "cpu-2"]

    monkeypatch.setattr(time, "sleep", lambda _: leases[0].release())
    with acquire() as next_lease:
        assert next_lease.name == "cpu-0"
    for lease in leases:
        lease.release()


@pytest.mark.parametrize("variable", ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"])
@pytest.mark.parametrize(("visible", "expected"), [("3", ("cuda", "3")), ("", ("cpu", "cpu"))])
def test_steps_aside_under_a_batch_system(monkeypatch, tmp_path, variable, visible, expected):
    monkeypatch.setenv(variable, "1234.head")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    before = dict(os.environ)

    # Twice at once: nothing is locked.
    with acquire() as first, acquire() as second:
        assert (first.device, first.name) == (second.device, second.name) == expected
    assert dict(os.environ) == before
    assert not (tmp_path / "leases").exists()


def test_the_processes_of_one_batch_job_share_its_devices_out(monkeypatch):
    with ExitStack() as held:
        # Device 0 of job 8 may be another device than device 0 of job 7.
        for job, device in (("7", "0"), ("7", "1"), ("8", "0")):
            monkeypatch.setenv("SLURM_JOB_ID", job)
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
            assert held.enter_context(acquire()).name == device


def test_the_default_folder_is_this_users_own_whatever_tmpdir_is(monkeypatch, tmp_path):
    assert Path("/tmp") == lease_module._PARENT
    monkeypatch.delenv("SILENT_GRADIENTS_LEASES")
    monkeypatch.setattr(lease_module, "_PARENT", tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("SILENT_GRADIENTS_DEVICES", "0")

    with acquire():
        folder = tmp_path / f"silent-gradients-leases-{os.getuid()}"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [path.name for path in folder.iterdir()] == ["0.lock"]


def test_another_users_folder_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("SILENT_GRADIENTS_LEASES")
    monkeypatch.setattr(lease_module, "_PARENT", tmp_path)
    stranger = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: stranger)

    with pytest.raises(LeaseError, match=r"belongs to another user; set SILENT_GRADIENTS_LEASES"):
        acquire()


@pytest.mark.parametrize("make", [Path.touch, lambda folder: (folder / "0.lock").mkdir(parents=True)])
def test_an_unusable_folder_or_lock_file_is_named(monkeypatch, tmp_path, make):
    monkeypatch.setenv("SILENT_GRADIENTS_DEVICES", "0")
    make(tmp_path / "leases")

    with pytest.raises(LeaseError, match=rf"{re.escape(str(tmp_path))}/leases.*; set SILENT_GRADIENTS_LEASES"):
        acquire()


def test_a_lease_can_be_released_twice():
    lease = acquire()
    lease.release()
    lease.release()
