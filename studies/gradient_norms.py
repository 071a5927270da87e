"""Norms of the gradients that clipping sees: by optimizer, over the steps of one run.

    python studies/gradient_norms.py RUNS_CELL [--preset digits] [--epochs 10] [--seed 100]

For every optimizer and epoch: the median, the 99th percentile and the largest norm, and the share of steps that the
preset's clipping shortens with the median of its factors.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import pandas as pd
import torch
from studies.sensitivity import PRESETS, change_named, runs_of
from torch import Tensor

from silent_study import params
from silent_study.data.batches import RunData
from silent_study.data.prepare import dequantize, prepare
from silent_study.data.prepared import PreparedData
from silent_study.plan.plan import Plan
from silent_study.settings import RunSettings
from silent_study.training.device import configure_torch
from silent_study.training.loop import Trainer
from silent_study.training.optimizer import AdamW
from silent_study.training.steps import Stepper


def norms(run: RunSettings, folder: Path, steps: int) -> pd.DataFrame:
    """Train a run's first steps and return the norm of every optimizer's gradient, a row per step and optimizer.

    Args:
        run: The run.
        folder: Folder of the prepared data.
        steps: Number of steps.
    """
    data = RunData.load(PreparedData.open(folder, run.data.sha256), run, torch.device("cpu"))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as working:
        trainer = Trainer(run, data, Path(working), torch.device("cpu"))

        def recorded(name: str, optimizer: AdamW) -> None:
            step = optimizer.step

            def stepped() -> None:
                gradients: list[Tensor] = [each.grad for each in optimizer.parameters if each.grad is not None]
                if gradients:
                    norm = float(torch.nn.utils.get_total_norm(gradients))
                    rows.append({"epoch": trainer.epoch + 1, "step": trainer.step, "optimizer": name, "norm": norm})
                step()

            optimizer.step = stepped  # type: ignore[method-assign]

        for name, optimizer in trainer.optimizers.items():
            recorded(name, optimizer)
        stepper = Stepper()
        for _ in range(steps):
            if not trainer.done:
                stepper.advance([trainer])
    return pd.DataFrame(rows)


def summary(found: pd.DataFrame, clip: float | None) -> pd.DataFrame:
    """Return norms by optimizer and epoch, with the share of clipped steps and the median of their factors."""
    grouped = found.groupby(["optimizer", "epoch"])["norm"]
    table = pd.DataFrame({"median": grouped.median(), "p99": grouped.quantile(0.99), "largest": grouped.max()})
    if clip is not None:
        table["clipped"] = grouped.apply(lambda norm: (norm > clip).mean())
        table["factor"] = grouped.apply(lambda norm: (clip / norm[norm > clip]).median())
    return table.reset_index()


def main() -> None:
    """Train, print the table and write it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cell", help="data set/experiment/method")
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--base", default="", metavar="NAME[+NAME..]", help="changes of sensitivity.py")
    parser.add_argument("--point", type=int, default=-1, help="of every grid; default: the last")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--results", type=Path, default=Path("results/sensitivity"), help="default: %(default)s")
    options = parser.parse_args()
    configure_torch()
    plan = Plan(params.resolve({"preset": options.preset}, PRESETS))
    (cell,) = (each for each in plan.cells() if each.name == options.cell)
    change = change_named(options.base) if options.base else lambda run: run
    (run,) = runs_of(plan, cell, change, 1, None, options.point, options.seed)
    folder = options.results / "data" / cell.dataset
    if not folder.exists():
        prepare(folder.name, folder, os.environ.get("SILENT_GRADIENTS_MIRROR"))
        dequantize(folder.name, folder)
    table = summary(norms(run, folder, options.steps), run.gradient_clip)
    print(table.to_string(index=False, float_format="{:.4g}".format))
    name = f"norms-{cell.name.replace('/', '-')}.csv"
    table.to_csv(options.results / name, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
