"""A throw-away repository of the project, in which tests run the programs that its users run."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped]
import yaml

from silent_study import params
from silent_study.plan.plan import ROUNDS, Plan
from silent_study.store.packs import PackSpec

CHECKOUT = Path(__file__).parents[2]
COPIED = (
    *("Snakefile", "workflow", "profiles", "presets", "measured", "src", "environment.yml", "pyproject.toml"),
    *("dvc.yaml", ".dvc/config", ".dvc/plots.html", ".dvc/plots", ".dvc/.gitignore", ".dvcignore", ".gitignore"),
)

LITERAL = ("snakemake", "--cores", "8", "--resources", "gpu=8", "all")
"""The command line of the README."""

RATES = [0.001, 0.003]
SEEDS = [0, 1]


def section(methods: list[str], **more: Any) -> dict[str, Any]:
    """A section of a preset: small networks and two epochs."""
    own = {"methods": methods, "epochs": 2, "batch_size": 128, "latent_dim": 4, "snapshot_epochs": [2], **more}
    return own | {
        "network": {"architecture": "plain", "encoder_channels": [2, 2, 2], "decoder_channels": [2, 2, 2, 2, 2]}
    }


TINY = {
    "seeds": SEEDS,
    # Starting a process is most of the work here: one job per round and experiment.
    "execution": {"workers": 1, "stack": 2},
    "evaluation": {"samples": 2, "variance_images": 8, "variance_draws": 4, "reconstructions": 2},
    "experiments": {
        "fixed": {"digits": section(["silent-gaussian", "reparameterization"], grid={"learning_rate": RATES})},
        "learnable": {
            "digits": section(
                ["reparameterization", "reparameterization+silent"],
                grid={"learning_rate": RATES, "annealing_rate": [0.5]},
            )
        },
    },
}
"""Everything that the workflow has, in the least of time: grids, an annealed method, several seeds."""

LONG = {
    "seeds": [0],
    "execution": {"workers": 1, "checkpoint_seconds": 0.001},
    "evaluation": TINY["evaluation"],
    "experiments": {
        "fixed": {
            "digits": section(["reparameterization"], grid={"learning_rate": [0.003]}, epochs=60, evaluate_every=10)
        }
    },
}
"""One run, long enough to be interrupted several times."""


@cache
def _without_network() -> tuple[str, ...]:
    """A prefix that takes the network from a command, where the system allows that."""
    prefix = ("unshare", "--map-root-user", "--net", "--")
    allowed = shutil.which(prefix[0]) and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    return prefix if allowed else ()


@dataclass(frozen=True)
class Repository:
    """A repository in use.

    Attributes:
        root: Its folder.
    """

    root: Path

    @classmethod
    def make(cls, root: Path, **presets: Mapping[str, Any]) -> "Repository":
        """A committed repository with presets of the tests beside its own; the first one is in use."""
        for name in COPIED:
            source, target = CHECKOUT / name, root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.egg-info"))
            else:
                shutil.copy2(source, target)
        for name, preset in presets.items():
            (root / "presets" / f"{name}.yaml").write_text(yaml.safe_dump(preset))
        repository = cls(root)
        repository.configure(preset=next(iter(presets)))
        repository.git("init", "--quiet", "--initial-branch=main")
        repository.commit("The project")
        return repository

    def copy(self, root: Path) -> "Repository":
        """A copy with file times, as if it had been made there."""
        shutil.copytree(self.root, root, symlinks=True)
        return Repository(root)

    @property
    def environment(self) -> dict[str, str]:
        """What the programs see: this package, this interpreter, one core each, no GPU, no network."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SNAKEMAKE_", "DVC_"))}
        nowhere = "http://127.0.0.1:9"
        return own | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "SILENT_GRADIENTS_LEASES": f"{self.root}-leases",
            "SILENT_GRADIENTS_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": f"{self.root}-dvc",
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@localhost",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@localhost",
            **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), nowhere),
        }

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before every command."""
        return _without_network()

    def start(self, *argv: str, output: int | IO[str] = subprocess.PIPE) -> "subprocess.Popen[str]":
        """Start a program in a process group of its own, as an interactive shell does; its output is one stream."""
        return subprocess.Popen(
            [*self.prefix, *argv],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *argv: str) -> str:
        """Run a program that is to succeed; returns its output."""
        output, code = self.finish(self.start(*argv))
        assert code == 0, f"{' '.join(argv)} exited with {code}:\n{output}"
        return output

    def fail(self, *argv: str) -> str:
        """Run a program that is to fail; returns its output."""
        output, code = self.finish(self.start(*argv))
        assert code != 0, f"{' '.join(argv)} succeeded:\n{output}"
        return output

    @staticmethod
    def finish(process: "subprocess.Popen[str]") -> tuple[str, int]:
        """Wait for a started program; returns its output and exit code."""
        output, _ = process.communicate(timeout=600)
        return output, process.returncode

    def git(self, *arguments: str) -> str:
        """Run git."""
        return self.run("git", *arguments)

    def commit(self, message: str) -> None:
        """Commit everything that is not ignored."""
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message={message}")

    def check_nothing_to_do(self) -> None:
        """Snakemake has nothing to run, DVC nothing to record."""
        assert "Nothing to be done" in self.run(*LITERAL, "--dry-run")
        assert "up to date" in self.run("dvc", "status")

    def configure(self, preset: str = "tiny", **own: Any) -> None:
        """Write params.yaml."""
        (self.root / "params.yaml").write_text(yaml.safe_dump({"preset": preset, **own}))

    def set_rates(self, experiment: str, rates: list[float]) -> None:
        """Write params.yaml with another grid of learning rates."""
        self.configure(experiments={experiment: {"digits": {"grid": {"learning_rate": rates}}}})

    @property
    def results(self) -> Path:
        """Folder of the results."""
        return self.root / "results"

    @property
    def plan(self) -> Plan:
        """What params.yaml asks for."""
        return Plan(params.load(self.root / "params.yaml"), self.results)

    def packs(self) -> list[PackSpec]:
        """Every pack of the plan; all selections are to be made."""
        return [pack for round_ in ROUNDS for pack in self.plan.packs(round_, self.plan.selections(round_))]

    def planned(self) -> set[str]:
        """Names of the runs that the plan asks for."""
        return {run.name for pack in self.packs() for run in pack.members}

    def runs(self) -> set[str]:
        """Names of the runs in the store."""
        store = self.results / "store"
        return {str(record.parent.relative_to(store)) for record in store.glob("*/*/*/*/record.json")}

    def run_folder(self, cell: str, **settings: Any) -> Path:
        """The one run of a cell with these settings."""
        (found,) = (
            path.parent
            for path in self.results.glob(f"store/{cell}/*/settings.json")
            if settings.items() <= json.loads(path.read_text()).items()
        )
        return found

    def metrics(self) -> Any:
        """The content of metrics.json."""
        return json.loads((self.results / "metrics.json").read_text())

    def selection(self) -> Any:
        """The content of selection.json."""
        return json.loads((self.results / "selection.json").read_text())

    def contents(self, *names: str) -> dict[str, bytes]:
        """Content by path of the results' files below ``names``, but for the locks, which are nobody's results."""
        return {
            str(path.relative_to(self.results)): path.read_bytes()
            for name in names
            for path in [self.results / name, *self.results.joinpath(name).rglob("*")]
            if path.is_file() and path.parent.name != ".locks"
        }

    def numbers(self) -> dict[str, bytes]:
        """Everything that the runs' numbers are in; times and hardware are in other files."""
        store = {
            path.relative_to(self.results).as_posix(): path.read_bytes()
            for pattern in ("curve.jsonl", "result.json", "settings.json", "evaluation.json")
            for path in self.results.glob(f"store/*/*/*/*/{pattern}")
        }
        return store | self.contents("metrics.json", "curves", "selection.json")

    def times(self) -> dict[str, int]:
        """Modification time by path of everything that the workflow made."""
        return {
            str(path.relative_to(self.root)): path.stat().st_mtime_ns
            for folder in ("data", "results", "logs")
            for path in (self.root / folder).rglob("*")
        }

    def curve_times(self) -> dict[str, int]:
        """Modification time by path of every curve: when each run was trained."""
        return {path: time for path, time in self.times().items() if path.endswith("/curve.jsonl")}

    def processes(self) -> list[Any]:
        """Processes that work in this repository."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended, or is somebody else's
                # The folder first, which takes a single system call: tests look many times a second.
                if Path(process.cwd()).is_relative_to(self.root) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def process_of(self, *words: str) -> Any:
        """A process that runs a program, its name and first arguments given; None where there is none."""
        for process in self.processes():
            try:
                _interpreter, program, *arguments = process.cmdline()
            except (psutil.Error, ValueError):  # it has just ended, or is none of Python's
                continue
            if (Path(program).name, *arguments)[: len(words)] == words:
                return process
        return None

    def trainer(self) -> Any:
        """The process that trains; None where there is none."""
        return self.process_of("silent-gradients", "train")

    def epochs_trained(self) -> int:
        """Epochs on record of runs that are not finished."""
        return sum(
            len(path.read_text().splitlines()) for path in self.results.glob("store/*/*/*/*.partial/curve.jsonl")
        )


def wait_until(condition: Callable[[], Any], process: "subprocess.Popen[str] | None" = None) -> None:
    """Wait for a condition, which the process is to bring about if there is one."""
    deadline = time.monotonic() + 600
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"it ended too early: {process.communicate()[0]}")
        assert time.monotonic() < deadline, "nothing happened in ten minutes"
        time.sleep(0.005)
