"""A real SLURM of one node on the loopback device, in a folder of its own: nothing of it is left on the machine.

Needs ``slurmctld``, ``slurmd``, ``munged`` and root; on Debian or Ubuntu:

    apt-get install --no-install-recommends slurm-wlm munge
"""

import os
import secrets
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged")
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct")
CARDS = 4


def missing() -> str:
    """Return why Slurm cannot run here; empty if it can."""
    if lacking := [name for name in (*PROGRAMS, *COMMANDS) if _program(name) is None]:
        return f"no {', '.join(lacking)}; on Debian: apt-get install --no-install-recommends slurm-wlm munge"
    if os.geteuid() != 0:
        return "slurmd starts jobs as root alone"
    return ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Slurm:
    """A running cluster.

    Attributes:
        folder: Its configuration, logs, state and commands.
    """

    folder: Path

    @property
    def commands(self) -> Path:
        """Folder of the commands for this cluster.

        The plugin takes SLURM's variables out of the environment of a job's steps: SLURM_CONF alone would not do.
        """
        return self.folder / "bin"

    def ask(self, *argv: str) -> str:
        """Run one of the commands."""
        command = [str(self.commands / argv[0]), *argv[1:]]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def jobs(self) -> list[dict[str, str]]:
        """Every job that SLURM knows of, finished ones too, by the fields of ``scontrol``."""
        lines = self.ask("scontrol", "show", "job", "--oneliner").splitlines()
        jobs = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return [job for job in jobs if job]  # an empty queue is a sentence


@contextmanager
def running(folder: Path) -> Iterator[Slurm]:
    """Start a cluster with one node and as many simulated GPUs as ``CARDS``; stop it at the end."""
    folder.mkdir(parents=True)
    for name in ("state", "spool", "cards", "bin"):
        (folder / name).mkdir()
    host, munge = socket.gethostname().split(".")[0], folder / "munge.socket"
    for card in range(CARDS):
        # A device file of NVIDIA's number, behind which there is nothing.
        os.mknod(folder / "cards" / f"nvidia{card}", stat.S_IFCHR | 0o666, os.makedev(195, card))
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    configuration = {
        "ClusterName": "loopback",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": _free_port(),
        "SlurmdPort": _free_port(),
        "SlurmUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={munge}",
        "CredType": "cred/munge",
        "CommunicationParameters": "NoInAddrAny",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.pid",
        "SlurmctldLogFile": folder / "slurmctld.log",
        "SlurmdLogFile": folder / "slurmd.log",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "AccountingStorageType": "accounting_storage/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "MpiDefault": "none",
        "ReturnToService": 2,
        "MinJobAge": 3600,
        "KillWait": 2,
        "OverTimeLimit": 0,
        "GresTypes": "gpu",
        "PartitionName": f"loopback Nodes={host} Default=YES MaxTime=INFINITE State=UP",
        # More cores and memory than there may be: only what is granted matters here.
        "NodeName": f"{host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:{CARDS} State=UNKNOWN",
        "SlurmdParameters": "config_overrides",
    }
    (folder / "slurm.conf").write_text("".join(f"{name}={value}\n" for name, value in configuration.items()))
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/cards/nvidia[0-{CARDS - 1}]\n")
    for name in COMMANDS:
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexport SLURM_CONF={folder}/slurm.conf\nexec {_program(name)} "$@"\n')
        script.chmod(0o755)

    own = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*argv: object) -> None:
        with (folder / f"{Path(str(argv[0])).name}.txt").open("wb") as output:
            daemons.append(subprocess.Popen([str(word) for word in argv], env=own, stdout=output, stderr=output))

    cluster = Slurm(folder)
    try:
        files = [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "seed", "log")]
        start(_program("munged"), "--foreground", "--force", f"--socket={munge}", f"--key-file={key}", *files)
        _wait(munge.exists, cluster)
        start(_program("slurmctld"), "-D", "-f", folder / "slurm.conf")
        start(_program("slurmd"), "-D", "-f", folder / "slurm.conf")
        _wait(lambda: "idle" in cluster.ask("sinfo", "--noheader", "--format=%t"), cluster)
        yield cluster
    finally:
        with suppress(subprocess.CalledProcessError):
            cluster.ask("scancel", "--full", "--user=root")
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _wait(ready: Callable[[], bool], cluster: Slurm) -> None:
    deadline = time.monotonic() + 60
    while True:
        with suppress(subprocess.CalledProcessError):
            if ready():
                return
        if time.monotonic() > deadline:
            logs = [path.read_text()[-2000:] for path in sorted(cluster.folder.glob("*.log"))]
            raise AssertionError("\n".join(["SLURM did not start in a minute", *logs]))
        time.sleep(0.1)
