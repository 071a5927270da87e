"""Wall time of the main job in a fresh clone, and how much of it trains.

    python benchmarks/main_job.py [--cores 8] [--set execution.stack=1]

The commit that is checked out is cloned into a temporary folder, and the job of the README runs there with the programs
of this environment. Time counts as training while at least one run is being trained, from its first step to its last
evaluation, as the runs' provenance has it; the rest is starting processes, evaluating, gathering and drawing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def covered(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of some intervals."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def main() -> None:
    """Run the job and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", default="8")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings over params.yaml's")
    parser.add_argument("--keep", type=Path, help="folder to clone into, which stays; it must not be there yet")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        clone = options.keep or Path(temporary) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        document = yaml.safe_load((clone / "params.yaml").read_text())
        for setting in options.set:
            key, value = setting.split("=", 1)
            *sections, last = key.split(".")
            section = document
            for name in sections:
                section = section.setdefault(name, {})
            section[last] = yaml.safe_load(value)
        (clone / "params.yaml").write_text(yaml.safe_dump(document))
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(clone / "src"),
        }
        command = ["snakemake", "--cores", options.cores, "--resources", "gpu=8", "all"]
        start = time.perf_counter()
        subprocess.run(command, cwd=clone, env=environment, check=True)
        wall = time.perf_counter() - start
        runs = [json.loads(path.read_text()) for path in (clone / "results/store").rglob("provenance.json")]
        times = [tuple(datetime.fromisoformat(run[key]).timestamp() for key in ("started", "finished")) for run in runs]
        training = covered([(start, stop) for start, stop in times])
        busy = sum(run["seconds"] for run in runs)
        print(
            f"{' '.join(options.set)}: {wall:.0f} s, {len(runs)} runs; at least one trains {training / wall:.0%} of it"
        )
        print(
            f"training and its evaluations: {busy:.0f} s of the processes' time, {busy / wall:.2f} at once on average"
        )


if __name__ == "__main__":
    main()
