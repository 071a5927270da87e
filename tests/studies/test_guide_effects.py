"""The gradients of an encoder by term, and the bound by class of pixels."""

import sys

import pandas as pd
import pytest
import torch
from torch import nn

import silent_gradients as sg
from silent_gradients.estimators.silent import Silent
from silent_study.store.runs import RunStore
from studies import guide_effects


def test_the_terms_weighted_as_in_equation_8_are_the_gradient_of_a_training_step():
    torch.manual_seed(0)
    x, alpha = torch.rand(20, 1, 2, 3), 0.3
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    decoder, guide = (sg.FixedVarianceDecoder(2, 6, variance=variance) for variance in (0.5, 0.1))
    vae = sg.VAE(encoder, sg.Gaussian, decoder, Silent(), guide)
    found = guide_effects.gradients(vae, x, 1, torch.Generator())
    vae.training_step(x, state={}, alpha=alpha).loss.backward()
    stepped = torch.cat([weight.grad.flatten() for weight in encoder.parameters()])
    mixed = alpha * found["guide"] + (1 - alpha) * found["decoder"] + found["kl"]
    torch.testing.assert_close(mixed, stepped)


def test_norms_and_cosines_of_known_vectors():
    vectors = {"decoder": torch.tensor([3.0, 4.0]), "kl": torch.tensor([-4.0, 3.0]), "guide": torch.tensor([6.0, 8.0])}
    expected = {"norm decoder": 5, "norm kl": 5, "norm guide": 10}
    expected |= {"cosine decoder guide": 1, "cosine decoder kl": 0, "cosine guide kl": 0}
    assert guide_effects.compared(vectors) == pytest.approx(expected, abs=1e-6)


def test_every_pixel_is_of_one_class():
    train = torch.tensor([[0, 5, 0, 7], [0, 6, 0, 7]])
    report = torch.tensor([[0, 0, 1, 7], [9, 5, 0, 0]])
    classes = guide_effects.pixel_classes(report, train)
    assert classes["constant"].tolist() == [[True, False, True, True]] * 2
    assert classes["background"].tolist() == [[False, True, False, False], [False] * 4]
    assert classes["strokes"].tolist() == [[False] * 4, [False, True, False, False]]


def test_the_parts_of_the_bound_add_up_to_the_evaluated_one(tmp_path, monkeypatch, capsys):
    cell = "digits/learnable/reparameterization"
    options = ["--epochs", "2", "--snapshots", "1", "2", "--seeds", "1", "--images", "16", "--draws", "8"]
    monkeypatch.setattr(sys, "argv", ["guide_effects.py", cell, *options, "--results", str(tmp_path)])
    guide_effects.main()
    assert "strokes" in capsys.readouterr().out
    pixels = pd.read_csv(tmp_path / f"pixels-{cell.replace('/', '-')}.csv", index_col="method").drop(columns="seed")
    store = RunStore(tmp_path / "store")
    runs = [store.unverified(name) for name in store.names()]
    evaluated = {run.method: run.metrics("report") for run in runs}
    for method, parts in pixels.iterrows():
        # Other samples: the evaluation decodes in chunks.
        tolerance = 5 * evaluated[method]["bpd_mc_error"]
        assert parts.sum() == pytest.approx(evaluated[method]["bpd"], abs=tolerance)
        assert tolerance < 0.01
        assert parts["kl"] == pytest.approx(evaluated[method]["kl"] / 64 / 0.6931471805599453, rel=1e-4)
    rows = pd.read_csv(tmp_path / f"gradients-{cell.replace('/', '-')}.csv")
    assert sorted(zip(rows.method, rows.epoch, strict=True)) == [(m, e) for m in sorted(evaluated) for e in (1, 2)]
    assert rows.set_index("method").loc[f"{cell.split('/')[-1]}+silent", "norm guide"].notna().all()
