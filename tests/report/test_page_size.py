"""The page of the main job stays small enough to be sent around and opened by anything."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.report.conftest import context_of, latents, record_of, write_run

from silent_study import params
from silent_study.plan.plan import GRID_ROUNDS, ROUNDS, Plan
from silent_study.report.gather import gather

PRESETS = Path(__file__).parents[2] / "presets"
MEGABYTE = 1_000_000
COARSE = 2
EPOCHS = 150
"""More than the page draws of any curve, so that more of them would change nothing."""


def _blur(path):
    """Give images of noise no more detail than reconstructions have: blocks of 2 by 2 pixels."""
    if path.exists():
        with np.load(path) as arrays:
            blocks: dict[str, Any] = {
                name: np.repeat(np.repeat(images[..., ::COARSE, ::COARSE], COARSE, axis=-1), COARSE, axis=-2)
                for name, images in arrays.items()
            }
        np.savez(path, **blocks)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_page_of_the_papers_whole_study_is_under_five_megabytes(tmp_path):
    plan = Plan(params.resolve({"preset": "paper"}, PRESETS), tmp_path / "results")
    selections: dict[Any, Any] = {}
    for round_ in GRID_ROUNDS:
        for cell in plan.cells_of(round_):
            point, run = plan.grid_runs(cell, selections)[0]
            selections[cell.name] = {"status": "selected", "point": point, "run": run.name, "bpd": 3.0}
    planned = [(round_, run) for round_ in ROUNDS for pack in plan.packs(round_, selections) for run in pack.members]
    in_seeds = {run.name for round_, run in planned if round_ == "seeds"}
    records = []
    for number, (round_, run) in enumerate(planned):
        folder = tmp_path / "store" / run.name
        if not folder.exists():
            shape = list(run.data.shape)
            write_run(
                tmp_path / "store",
                run.cell,
                name=run.name,
                seed=run.seed,
                bpd=3 + (number % 7) / 9,
                selected=run.name in in_seeds,
                epochs=EPOCHS,
                data__shape=shape,
            )
            _blur(folder / "reconstructions.npz")
            (folder / "settings.json").write_text(json.dumps(run.to_json()))
            digests = {f"{name}.json": "0123456789abcdef" * 4 for name in ("curve", "provenance", "result", "settings")}
            record = json.loads((folder / "record.json").read_text())
            (folder / "record.json").write_text(json.dumps(record | {"files": digests}))
        records.append(record_of(folder, round_))
    cells = tuple(cell.name for cell in plan.cells())
    pictures = {run.cell: latents(run.data.shape, noise=0.1) for _, run in planned}
    assert len(cells) == 29
    assert len({record.name for record in records}) > 300
    gather(
        records,
        context_of(cells, preset="paper", selections=selections, latents=pictures, datasets={}),
        tmp_path / "results",
    )
    assert (tmp_path / "results" / "report.html").stat().st_size < 5 * MEGABYTE
