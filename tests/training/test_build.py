"""From settings to a model: shapes, starts, rates and what is read back."""

import dataclasses
import math
from typing import get_args

import numpy as np
import pytest
import torch
from tests.tiny import CPU

from silent_gradients import (
    ConvolutionalDecoder,
    Decoder,
    FixedVarianceDecoder,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    TwoLayerDecoder,
    networks,
)
from silent_gradients.estimators import Silent
from silent_study.methods import METHODS
from silent_study.settings import Precision
from silent_study.training.build import build_optimizers, build_vae, load_snapshot, silent_schedule, standardization

CELLS = [f"{experiment}/{method}" for experiment, methods in METHODS.items() for method in methods]
DECODERS: dict[str, type[Decoder]] = {
    "fixed": FixedVarianceDecoder,
    "learnable": ConvolutionalDecoder,
    "log-linear": LogLinearPrecisionDecoder,
    "two-layer": TwoLayerDecoder,
}
RNG = np.random.default_rng(0)
MEAN, DEVIATION = RNG.uniform(0.2, 0.8, 16), RNG.uniform(0.05, 0.3, 16)


def build(settings):
    return build_vae(settings, MEAN, DEVIATION)


def state(settings):
    return build(settings).state_dict()


@pytest.mark.parametrize("cell", CELLS)
def test_every_method_has_its_parts(tiny, cell):
    settings = tiny.settings(cell)
    vae = build(settings)
    guided = settings.silent is not None
    assert isinstance(vae.decoder, DECODERS[settings.experiment])
    assert isinstance(vae.guide, LinearPrecisionDecoder) == guided
    if settings.silent is not None:
        assert vae.guide_estimator == (vae.estimator if settings.silent.sampled else Silent())
    assert vae.family.name == settings.posterior
    assert (vae.estimator is None) == (settings.estimator == "none")
    if vae.estimator is not None:
        options = {field.name: getattr(vae.estimator, field.name) for field in dataclasses.fields(vae.estimator)}
        assert options.items() >= settings.estimator_options.items()
    x = torch.rand(5, 1, 4, 4)
    q = vae.posterior(x)
    assert q.mean.shape == (5, 3)
    assert vae.decoder.likelihood(q.sample(2)).log_prob(x.flatten(1)).shape == (2, 5)
    if guided:
        assert vae.guide.log_term == settings.silent.log_term
    step = vae.training_step(x, state=vae.initial_state(CPU, 5), alpha=0.5 if guided else 0.0, index=torch.arange(5))
    step.loss.backward()
    # The precision's weights may get a gradient of zero, and no weight is left without one.
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in vae.parameters())


@pytest.mark.parametrize("cell", ["learnable/silent-bernoulli", "learnable/reparameterization+silent"])
def test_a_log_linear_guide_has_its_parts(tiny, cell):
    settings = tiny.settings(cell, silent={"guide": "log-linear"})
    vae = build(settings)
    assert isinstance(vae.guide, LogLinearPrecisionDecoder)
    rates = {id(weight): part.rate for part in build_optimizers(settings, vae).values() for weight in part.parameters}
    heads = {vae.guide.mean_head: 0.002, vae.guide.precision_head: 0.001}
    assert {rates[id(weight)] for head in heads for weight in head.parameters()} == {0.002, 0.001}
    assert all(rates[id(weight)] == rate for head, rate in heads.items() for weight in head.parameters())


def test_a_quadratic_guide_has_one_rate(tiny):
    settings = tiny.settings("learnable/reparameterization+silent", silent={"guide": "quadratic"}, hidden_units=4)
    vae = build(settings)
    assert isinstance(vae.guide, TwoLayerDecoder)
    assert (vae.guide.activation, len(vae.guide.hidden.weight)) == ("square", 4)
    rates = {id(weight): part.rate for part in build_optimizers(settings, vae).values() for weight in part.parameters}
    assert {rates[id(weight)] for weight in vae.guide.parameters()} == {0.002}


@pytest.mark.parametrize("cell", CELLS)
def test_the_start_is_the_seeds(tiny, cell):
    settings = tiny.settings(cell)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = state(settings)
    assert torch.equal(torch.get_rng_state(), before)  # whoever builds a model keeps their own random numbers
    torch.manual_seed(6)
    other = state(settings)
    assert all(torch.equal(one[name], other[name]) for name in one)
    seeded = state(dataclasses.replace(settings, seed=1))
    weights = [name for name in one if name.endswith("weight")]
    assert not any(torch.equal(one[name], seeded[name]) for name in weights)


def test_the_standardized_start_is_the_data(tiny):
    x = torch.rand(1, 4, 4)
    for cell in ("fixed/silent-gaussian", "learnable/reinforce"):
        vae = build(tiny.settings(cell))
        likelihood = vae.decoder.likelihood(torch.zeros(1, 1, 3))
        close = {"fixed/silent-gaussian": 1e-6, "learnable/reinforce": 0.5}[cell]
        deviation = (likelihood.mean[0, 0].detach().numpy() - MEAN) / DEVIATION
        assert np.abs(deviation).max() < close
        q = vae.posterior(x[None])
        assert float(q.kl_divergence().detach()) < 3 * 0.1  # close to the prior
    guide = build(tiny.settings("learnable/silent-gaussian")).guide
    log_linear_guide = build(tiny.settings("learnable/silent-gaussian", silent={"guide": "log-linear"})).guide
    for decoder in (guide, log_linear_guide, build(tiny.settings("log-linear/reinforce")).decoder):
        likelihood = decoder.likelihood(torch.zeros(1, 1, 3))
        np.testing.assert_allclose(likelihood.mean[0, 0].detach().numpy(), MEAN, rtol=1e-6)
        np.testing.assert_allclose(likelihood.precision_squared[0, 0].detach().numpy(), DEVIATION**-2, rtol=1e-5)


def test_pytorchs_start_leaves_outputs_raw(tiny):
    settings = tiny.settings("learnable/reinforce+silent", initialization="torch")
    scale = standardization(settings, MEAN, DEVIATION)
    assert torch.equal(scale.mean, torch.zeros(16))
    assert torch.equal(scale.scale, torch.ones(16))
    vae = build(settings)
    # PyTorch draws weights and biases of a linear layer from U(-1/sqrt(k), 1/sqrt(k)).
    for head in (vae.guide.mean_head, vae.guide.precision_head):
        assert 0.8 / math.sqrt(3) < float(head.weight.detach().abs().max()) <= 1 / math.sqrt(3)
        assert float(head.bias.detach().abs().max()) > 0


@pytest.mark.parametrize(("levels", "largest"), [(256, 1000), (17, 67)])
def test_the_largest_precision_lies_above_that_of_a_constant_pixel(tiny, levels, largest):
    settings = tiny.settings("learnable/reinforce")
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, levels=levels))
    found = standardization(settings, MEAN, DEVIATION).largest_precision
    # The dequantization noise of a constant pixel has deviation 1 / (levels sqrt 12).
    assert levels * math.sqrt(12) < found < 1.2 * levels * math.sqrt(12)
    assert found == pytest.approx(largest, rel=0.01)


def test_a_fixed_variance_must_be_there(tiny):
    with pytest.raises(ValueError, match="variance"):
        build(tiny.settings("fixed/reinforce", variance=None))


@pytest.mark.parametrize("cell", CELLS)
def test_every_weight_has_one_optimizer_at_its_rate(tiny, cell):
    settings = tiny.settings(cell, learning_rate=0.1, weight_decay=0.3, betas=(0.5, 0.6))
    vae = build(settings)
    optimizers = build_optimizers(settings, vae)
    rates = {}
    for optimizer in optimizers.values():
        assert (optimizer.betas, optimizer.weight_decay) == ((0.5, 0.6), 0.3)
        for weight in optimizer.parameters:
            assert weight not in rates
            rates[weight] = optimizer.rate
    linear = {"decoder.mean_head": 0.002, "decoder.precision_head": 0.0005}
    own = {"decoder": 0.002}
    reported = {"fixed": own, "learnable": {"decoder": 0.1}, "log-linear": linear, "two-layer": own}
    expected = {"encoder": 0.1, "guide.mean_head": 0.002, "guide.precision_head": 0.001}
    expected |= reported[settings.experiment]
    named = dict(vae.named_parameters())
    assert set(named.values()) == set(rates)
    for name, weight in named.items():
        (rate,) = [rate for prefix, rate in expected.items() if name.startswith(prefix + ".")]
        assert rates[weight] == rate, name


def test_a_snapshot_is_read_back(tiny, tmp_path):
    settings = tiny.settings("learnable/reinforce+silent")
    vae = build(settings)
    with torch.no_grad():
        for weight in vae.parameters():
            weight.add_(0.1)
    kept = {"average": torch.tensor(-3.0), "weight": torch.tensor(0.5)}
    torch.save({"vae": vae.state_dict(), "state": kept}, tmp_path / "snapshot.pt")
    again, found = load_snapshot(settings, MEAN, DEVIATION, tmp_path / "snapshot.pt", CPU)
    assert found == kept
    for name, value in vae.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_the_schedule_is_that_of_the_settings(tiny):
    assert silent_schedule(tiny.settings("learnable/reinforce").silent) is None
    assert silent_schedule(tiny.settings("learnable/reinforce-silent-baseline").silent) is None
    silent = {"plateau_epochs": 2.0, "annealing_rate": 0.25, "cutoff_epoch": 3}
    schedule = silent_schedule(tiny.settings("learnable/reinforce+silent", silent=silent).silent)
    assert [schedule.weight(epoch) for epoch in (0, 2, 3, 6)] == [1.0, 1.0, 0.75, 0.0]
    assert [schedule.frozen(epoch) for epoch in (2, 3)] == [False, True]
    alone = silent_schedule(tiny.settings("learnable/silent-gaussian").silent)
    assert [alone.weight(epoch) for epoch in (0, 100)] == [1.0, 1.0]
    assert not alone.frozen(100)


def test_networks_and_settings_agree_on_the_types_of_precision():
    assert get_args(networks.Precision) == get_args(Precision)
