"""Seconds and memory of planning a study, asking for its status and laying out its jobs, by its number of runs.

    python benchmarks/planning.py [--runs 1000 2000 4000 8000 16000]

Every study is of the digits: nine tenths of its runs are points of grids, the others seeds. At first nothing is done;
then the data are prepared, every run of the first round is in the store and its points are selected. Nothing is
trained.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from silent_study.data.prepare import PREPARED, RAW, opened
from silent_study.params import load
from silent_study.plan.plan import Plan
from silent_study.progress.status import StatusReader
from silent_study.progress.status_view import view
from silent_study.store.code import training_code
from silent_study.store.documents import Selected
from silent_study.store.manifests import manifest
from silent_study.store.runs import CODE, RunStore, write_json

ROOT = Path(__file__).resolve().parents[1]
BASELINES = ["reparameterization", "gumbel-softmax", "reinforce"]
SILENT = ["silent-gaussian", "silent-bernoulli"]
SECTION: dict[str, Any] = {
    "epochs": 40,
    "batch_size": 64,
    "latent_dim": 32,
    "network": {"architecture": "plain", "encoder_channels": [4, 8, 8], "decoder_channels": [8] * 5},
}
CELLS = 13


def write_study(folder: Path, runs: int) -> None:
    """Write params.yaml and the preset of a study of about so many runs, beside the workflow."""
    seeds = max(2, runs // 200)
    annealing = max(1, runs // 200)
    # Twelve runs a learning rate: of five methods with a fixed variance; of two with two cut-offs, three with none.
    rates = (runs - CELLS * seeds - 6 * annealing) // 12
    learning_rate = [round(1e-4 + 1e-6 * number, 9) for number in range(rates)]
    learnable = {
        "methods": [*SILENT, *BASELINES, *(f"{name}+silent" for name in BASELINES)],
        "grid": {
            "learning_rate": learning_rate,
            "annealing_rate": [round(0.02 + 1e-4 * number, 6) for number in range(annealing)],
            "cutoff_epoch": [None, 30],
        },
    }
    fixed = {"methods": [*SILENT, *BASELINES], "grid": {"learning_rate": learning_rate}}
    experiments = {name: {"digits": SECTION | own} for name, own in (("fixed", fixed), ("learnable", learnable))}
    (folder / "presets").mkdir(parents=True)
    preset = json.dumps({"seeds": list(range(seeds)), "experiments": experiments})
    (folder / "presets" / "large.yaml").write_text(preset)
    (folder / "params.yaml").write_text("preset: large\n")
    shutil.copy(ROOT / "Snakefile", folder)
    for name in ("workflow", "profiles"):
        shutil.copytree(ROOT / name, folder / name)


def finish_first_round(folder: Path) -> None:
    """Prepare the data; write what trainings and selections of the first round leave, as far as planning reads it."""
    opened("digits", folder / PREPARED / "digits")
    write_json(folder / RAW / "digits.json", {})
    plan = Plan(load(folder / "params.yaml"), folder / "results")
    store = RunStore(plan.results / "store")
    for group in plan.groups():
        for pack in plan.packs("baselines", {}, group):
            runs = []
            for settings in pack.members:
                working = store.working_folder(settings.name)
                working.mkdir(parents=True)
                document = {"status": "finished", "epochs": settings.epochs, "selection": {"bpd": 3.0}}
                write(working / "result.json", document)
                write(working / "provenance.json", {"seconds": 10.0, "images_per_second": 1000.0})
                write(working / "settings.json", settings.to_json())
                write(working / "curve.jsonl", {})
                write(working / CODE, training_code(settings.estimator))
                runs.append(store.seal(settings))
            write_json(plan.manifest(pack), manifest(pack, runs))
        cells: dict[str, Selected] = {}
        for cell in plan.cells_of("baselines", group):
            point, run = plan.grid_runs(cell, {})[0]
            chosen: Any = {"status": "selected", "point": point, "run": run.name, "bpd": 3.0}
            cells[cell.name] = chosen
        write_json(plan.selection_path("baselines", group, {}), {"round": "baselines", "cells": cells})


def write(path: Path, document: object) -> None:
    """Write JSON without waiting for the disk."""
    path.write_text(json.dumps(document))


def look_again(folder: Path) -> float:
    """Return the seconds of a second look at the status in one process."""
    os.chdir(folder)
    reader, plan = StatusReader(Path("logs")), Plan(load())
    reader.read(plan)
    start = time.perf_counter()
    view(reader.read(plan.renewed(load())))
    return time.perf_counter() - start


def measured(command: list[str], folder: Path) -> dict[str, float]:
    """Return wall time and CPU time of a command in seconds, and its peak memory in MB."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment)
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise RuntimeError(f"{command}: exit {process.returncode}\n{(folder / 'output').read_text()[-3000:]}")
    wall = time.perf_counter() - start
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss / 1024}


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Return the measurements of every command in a study's folder."""
    silent_gradients = [sys.executable, "-m", "silent_study"]
    snakemake = [sys.executable, "-m", "snakemake", "-n", "--cores", "2", "--resources", "gpu=1", "--", "all"]
    found = {
        "plan": measured([*silent_gradients, "plan"], folder),
        "status": measured([*silent_gradients, "status"], folder),
        "snakemake -n": measured(snakemake, folder),
    }
    again = subprocess.run(
        [sys.executable, __file__, "--look-again", str(folder)], capture_output=True, text=True, check=True
    )
    return found | {"status, later looks": {"wall": float(again.stdout)}}


def show(rows: Mapping[tuple[int, str, str], Mapping[str, float]]) -> None:
    """Print a table; wall time also as its ratio to that of the smallest study."""
    smallest = min(runs for runs, *_ in rows)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print("| runs | state | command | wall, s | of the smallest | CPU, s | peak, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (runs, state, command), found in rows.items():
        ratio = found["wall"] / rows[smallest, state, command]["wall"]
        others = [f"{found[key]:.{digits}f}" if key in found else "" for key, digits in (("cpu", 1), ("memory", 0))]
        print(f"| {runs} | {state} | `{command}` | {found['wall']:.2f} | {ratio:.1f} | {' | '.join(others)} |")


def main() -> None:
    """Measure and print, or take the looks that are measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 2000, 4000, 8000, 16000])
    parser.add_argument("--look-again", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look_again is not None:
        print(look_again(options.look_again))
        return
    rows: dict[tuple[int, str, str], Mapping[str, float]] = {}
    for runs in options.runs:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "study"
            write_study(folder, runs)
            for state in ("nothing done", "first round done"):
                rows |= {(runs, state, command): found for command, found in measure(folder).items()}
                if state == "nothing done":
                    finish_first_round(folder)
    show(rows)


if __name__ == "__main__":
    main()
