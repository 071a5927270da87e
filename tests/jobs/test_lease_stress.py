"""Eight devices, three workflows, jobs and workflows killed at random: no device is ever held twice, none stays held.

A workflow is a process that keeps several jobs running, each a process of its own that leases a device as a training
does. Who held what is told by an account of its own, in which all processes write by one clock: a job when its lease
begins and when it is about to end it, a workflow just before it kills a job. A lease that had begun lasts at least
until then.
"""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise

import pytest

from silent_study.jobs.lease import acquire

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEVICES, AT_ONCE, JOBS = 8, 5, 25

# Holds a lease for a while; tells when it began and when it is about to end.
JOB = """
import json, os, random, sys, time
from silent_study.jobs.lease import acquire
account = open(sys.argv[1], "a", buffering=1)
with acquire() as lease:
    account.write(json.dumps(["began", time.monotonic(), os.getpid(), lease.name]) + "\\n")
    time.sleep(random.uniform(0, 2))
    account.write(json.dumps(["ended", time.monotonic(), os.getpid(), lease.name]) + "\\n")
"""

# Keeps jobs running, each in a group of its own, and kills some of them: whether they wait, hold a device or just end.
WORKFLOW = """
import json, os, random, signal, subprocess, sys, time
job, account, seed, at_once, count = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
chance = random.Random(seed)
running = []
with open(account, "a", buffering=1) as lines:
    while count or running:
        while count and len(running) < at_once:
            process = subprocess.Popen([sys.executable, "-c", job, account], stderr=subprocess.DEVNULL)
            doomed = chance.random() < 0.6
            running.append((process, time.monotonic() + chance.uniform(0, 2.5) if doomed else None))
            count -= 1
        for process, doom in list(running):
            if process.poll() is not None:
                running.remove((process, doom))
            elif doom is not None and time.monotonic() > doom:
                number = chance.choice([signal.SIGKILL, signal.SIGTERM])
                lines.write(json.dumps(["killed", time.monotonic(), process.pid, number]) + "\\n")
                process.send_signal(number)
                process.wait()
                running.remove((process, doom))
        time.sleep(0.005)
"""

UUIDS = [f"GPU-{number}e5d0c7a-9b1f-4c7e-8a55-0d2f3b6c9e1{number}" for number in range(DEVICES)]
PARTS = [f"MIG-{number}b0c1d2e-55aa-5f0e-9c3d-7e8f9a0b1c2{number}" for number in range(DEVICES)]
GPUS = "".join(f"GPU {number}: NVIDIA H100 80GB HBM3 (UUID: {uuid})\n" for number, uuid in enumerate(UUIDS))
DIVIDED = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5d5ba0d6)\n" + "".join(
    f"  MIG 1g.10gb     Device  {number}: (UUID: {part})\n" for number, part in enumerate(PARTS)
)


def listed(names):
    return ",".join(map(str, names))


NUMBERS = listed(range(DEVICES))
# Per case: what nvidia-smi -L says, and the devices that each workflow is told; None: it asks nvidia-smi.
CASES = {
    "indexes": (GPUS, [NUMBERS] * 3),
    "uuids": (GPUS, [listed(UUIDS)] * 3),
    "parts": (DIVIDED, [listed(PARTS), None, listed(reversed(PARTS))]),
    "mixed": (GPUS, [listed(UUIDS), NUMBERS, None]),
    "overlapping subsets": (GPUS, [NUMBERS, "4,5,6,7", listed(UUIDS[2:6])]),
}


def physical(name):
    """The device that a UUID means."""
    for names in (UUIDS, PARTS):
        if name in names:
            return names.index(name)
    raise AssertionError(name)


def read_account(path):
    """Spans of time in which a device was certainly held, per device: (begin, end, process)."""
    entries = sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda entry: entry[1])
    open_leases = {}
    spans: dict[int, list[tuple[float, float, int]]] = {number: [] for number in range(DEVICES)}
    for what, when, process, detail in entries:
        if what == "began":
            open_leases[process] = (physical(detail), when)
        elif process in open_leases:  # else it was killed while it waited
            device, began = open_leases.pop(process)
            spans[device].append((began, when, process))
    return entries, spans, open_leases


@pytest.mark.parametrize("case", CASES)
def test_no_device_is_held_twice_and_none_stays_held(case, machine, provide_nvidia_smi, monkeypatch, tmp_path):
    listing, told = CASES[case]
    provide_nvidia_smi(f"cat <<'END'\n{listing}END")
    account = tmp_path / "account"

    def start(number, devices):
        words = map(str, (JOB, account, number, AT_ONCE, JOBS))
        environment = os.environ | ({} if devices is None else {"CUDA_VISIBLE_DEVICES": devices})
        command = [sys.executable, "-c", WORKFLOW, *words]
        return subprocess.Popen(command, env=environment, start_new_session=True)

    workflows = [start(number, devices) for number, devices in enumerate(told)]
    # The third workflow dies with all its jobs, as in a power cut of its container, and is started again.
    time.sleep(random.uniform(1, 2))
    died = time.monotonic()
    os.killpg(workflows[-1].pid, signal.SIGKILL)
    workflows[-1].wait()
    for workflow in (*workflows[:-1], start(3, told[-1])):
        assert workflow.wait(timeout=300) == 0

    entries, spans, lost = read_account(account)
    # Of those that died with their workflow it is known that they held their device until then.
    for process, (device, began) in lost.items():
        assert began < died
        spans[device].append((began, died, process))
    for held in spans.values():
        held.sort()
        for earlier, later in pairwise(held):
            assert earlier[1] <= later[0], (earlier, later)
    counted = Counter(entry[0] for entry in entries)
    began, ended = ({entry[2] for entry in entries if entry[0] == what} for what in ("began", "ended"))
    killed = {entry[2] for entry in entries if entry[0] == "killed"}
    assert counted["ended"] > 20
    assert killed - began, "none was killed while it waited"
    assert (killed & began) - ended, "none was killed while it held a device"
    # Nobody holds anything any more: asked of the kernel, and of whoever comes next.
    for lock in (tmp_path / "leases").iterdir():
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    leases = []
    for _ in range(DEVICES):
        if told[0] is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told[0])
        leases.append(acquire())
    assert {physical(lease.name) for lease in leases} == set(range(DEVICES))
    for lease in leases:
        lease.release()
