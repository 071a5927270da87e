"""Captured steps are the eager ones; needs a GPU."""

import dataclasses

import pytest
import torch
from tests.tiny import train

pytestmark = pytest.mark.gpu


def trained(place, folder, runs, **options):
    made = [place.trainer(run, folder / run.id, torch.device("cuda")) for run in runs]
    train(*made, **options)
    return made


def runs(place, cell):
    run = place.settings(cell, epochs=4, batch_size=8, gradient_clip=5.0, cooldown_epochs=2.5)
    if run.silent is not None:
        schedule = dataclasses.replace(run.silent, plateau_epochs=1.0, annealing_rate=0.5, cutoff_epoch=3)
        run = dataclasses.replace(run, silent=schedule)
    return [dataclasses.replace(run, seed=seed) for seed in (0, 1)]


CELLS = [
    "learnable/reparameterization+silent",
    "learnable/reinforce+silent",
    "learnable/silent-bernoulli",
    "fixed/rloo",
]


@pytest.mark.parametrize("study", ["tiny", "strided"])
@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_captured_steps_are_the_eager_ones(request, tmp_path, study, stacked, cell):
    place = request.getfixturevalue(study)
    eager = trained(place, tmp_path / "eager", runs(place, cell))
    captured = trained(place, tmp_path / "graph", runs(place, cell), stacked=stacked, captured=True)
    compare(eager, captured)


def test_steps_on_streams_are_the_eager_ones(tiny, tmp_path):
    various = [run for cell in CELLS for run in runs(tiny, cell)]
    eager = trained(tiny, tmp_path / "eager", various)
    # Every step is followed by a checkpoint, which is made outside of the streams.
    streams = trained(tiny, tmp_path / "streams", various, captured=True, streams=True, checkpoint_seconds=0.0)
    compare(eager, streams)


def compare(eager, captured):
    for one, other in zip(eager, captured, strict=True):
        for stream, source in one.generators.items():
            assert torch.equal(source.get_state(), other.generators[stream].get_state()), stream
        for mine, theirs in zip(one.curve, other.curve, strict=True):
            assert theirs["train_bpd"] == pytest.approx(mine["train_bpd"], abs=1e-3)
            assert theirs["train_kl"] == pytest.approx(mine["train_kl"], rel=1e-2, abs=1e-3)
        for name, value in one.vae.state_dict().items():
            assert torch.allclose(value.float(), other.vae.state_dict()[name].float(), rtol=1e-2, atol=1e-3), name
