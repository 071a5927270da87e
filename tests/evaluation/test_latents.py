"""Images of a run's latent variables come from its weights, are computed once, and need no data after that."""

import numpy as np
import pytest
import torch
from tests.evaluation.test_runs import selected
from tests.tiny import damage

from silent_study.data.errors import DataError
from silent_study.evaluation.latents import SAMPLES, kept_latents
from silent_study.store.runs import RunStore
from silent_study.training.build import load_snapshot
from silent_study.training.seeds import generator


@pytest.mark.parametrize("cell", ["fixed/silent-gaussian", "learnable/reinforce"])
def test_images_are_kept_as_eight_bits(tiny, tmp_path, cell):
    run, data, _ = selected(tiny, RunStore(tmp_path / "store"), tiny.settings(cell))
    found = kept_latents(run, tiny.folder, tmp_path)
    vae, _ = load_snapshot(
        tiny.settings(cell), data.mean, data.deviation, run.folder / "weights.pt", torch.device("cpu")
    )
    drawn = vae.generate(SAMPLES, generator(0, "evaluation", torch.device("cpu"))).clamp(0, 1).view(SAMPLES, 1, 4, 4)
    np.testing.assert_allclose(found["samples"] / 255, drawn, atol=0.5 / 255 + 1e-6)
    assert found["traversals"].shape[2:] == (1, 4, 4)
    assert len(found["traversals"]) == len(found["units"]) == len(found["kl"])
    again = kept_latents(run, tmp_path / "nowhere", tmp_path)
    for name, array in found.items():
        np.testing.assert_array_equal(again[name], array)
    (file,) = (tmp_path / "kept" / "latents").iterdir()
    content = file.read_bytes()
    for place in range(0, len(content), 37):
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(DataError, match="nowhere"):
            kept_latents(run, tmp_path / "nowhere", tmp_path)
    for break_it in (damage, lambda path: path.write_bytes(b""), lambda path: path.unlink()):
        break_it(file)
        with pytest.raises(DataError, match="nowhere"):
            kept_latents(run, tmp_path / "nowhere", tmp_path)


def test_a_run_without_weights_has_none(tiny, tmp_path):
    store = RunStore(tmp_path / "store")
    best, other = tiny.train_stored(store, tiny.settings(), tiny.settings(learning_rate=1e-30))
    assert sum(kept_latents(run, tiny.folder, tmp_path) is None for run in (best, other)) == 1
