import copy
import math
from typing import get_args

import pytest
import torch
from tests.method.reference import DOUBLE, seeded
from torch import nn

from silent_gradients import (
    ConvolutionalDecoder,
    FixedVarianceDecoder,
    LinearPrecisionDecoder,
    Standardization,
)
from silent_gradients.estimators import REGISTRY, EstimatorError, create
from silent_gradients.networks import encoder
from silent_gradients.posteriors import FAMILIES
from silent_gradients.vae import VAE, scale_gradient
from silent_study.settings import PosteriorFamily

SHAPES = {"plain": (1, 4, 4), "strided": (1, 32, 32)}
CHANNELS = {"plain": ((2, 3, 2), (2, 3, 2, 3, 2)), "strided": ((2, 3, 2, 4), (4, 3, 2, 2))}
BATCH, LATENT_DIM = 5, 3
CPU = torch.device("cpu")
SERVED = [
    (name, family)
    for name, estimator in REGISTRY.items()
    for family in get_args(PosteriorFamily)
    if estimator.supports(FAMILIES[family]) and not estimator.exact
]

ALONE = [(name, family) for name, family in SERVED if not REGISTRY[name].needs_control]


def images(architecture="plain"):
    return torch.rand(BATCH, *SHAPES[architecture], generator=seeded(120), dtype=DOUBLE)


def make(estimator, family, architecture="plain", *, guide=True, exact_decoder=None):
    """A small VAE in float64; ``strided`` has BatchNorm in encoder and decoder."""
    if exact_decoder is None:
        exact_decoder = estimator is not None and REGISTRY[estimator].exact
    torch.manual_seed(0)
    shape, (encoder_channels, decoder_channels) = SHAPES[architecture], CHANNELS[architecture]
    dimensions = math.prod(shape)
    identity = Standardization.identity(dimensions, 100.0)
    kind = FAMILIES[family]
    return VAE(
        encoder(architecture, kind.parameters_per_latent * LATENT_DIM, shape, encoder_channels),
        kind,
        FixedVarianceDecoder(LATENT_DIM, dimensions, 0.1)
        if exact_decoder
        else ConvolutionalDecoder(architecture, LATENT_DIM, shape, decoder_channels, identity, small_last_layer=False),
        None if estimator is None else create(estimator),
        LinearPrecisionDecoder(LATENT_DIM, identity) if guide else None,
    ).double()


def slopes(module):
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in module.named_parameters()
    }


def step(vae, x, seed=121, **options):
    index = torch.arange(len(x))
    return vae.training_step(x, state=vae.initial_state(CPU, len(x)), index=index, generator=seeded(seed), **options)


def separate_gradients(vae, x, seed=121):
    """Gradients of the two negative evidence lower bounds, each from its own forward and backward pass."""
    found = []
    for which in ("guide", "decoder"):
        own = copy.deepcopy(vae)
        q = own.family(own.encoder(x))
        pixels = x.flatten(1)
        if which == "guide":
            log_likelihood = own.guide.objective(pixels).expectation(q)
        elif own.estimator is None:
            log_likelihood = own.decoder.objective(pixels).sampled(q.sample(1, seeded(seed)))[0]
        else:
            log_likelihood = own.estimator(
                q,
                own.decoder.objective(pixels),
                control=own.control(pixels, q),
                index=torch.arange(len(x)),
                generator=seeded(seed),
                state=own.estimator.initial_state(CPU, BATCH),
            ).surrogate
        (q.kl_divergence() - log_likelihood).mean().backward()
        found.append(own)
    return found


def assert_same(found, expected, tolerance=1e-12):
    assert found.keys() == expected.keys()
    scale = max(1.0, *(float(slope.abs().max()) for slope in expected.values()))
    for name, slope in found.items():
        assert (slope - expected[name]).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("architecture", ["plain", "strided"])
@pytest.mark.parametrize(("estimator", "family"), [*SERVED, ("silent", "bernoulli")])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_one_backward_pass_is_the_mixture_of_two(architecture, estimator, family, alpha):
    """Eq. 8: the encoder's gradient is alpha g_guide + (1 - alpha) g_decoder, each decoder's its own in full."""
    vae, x = make(estimator, family, architecture), images(architecture)
    guide, decoder = separate_gradients(vae, x)
    step(vae, x, alpha=alpha).loss.backward()
    of_guide, of_decoder = slopes(guide.encoder), slopes(decoder.encoder)
    mixture = {name: alpha * of_guide[name] + (1 - alpha) * of_decoder[name] for name in of_guide}
    assert_same(slopes(vae.encoder), mixture)
    assert_same(slopes(vae.decoder), slopes(decoder.decoder))
    if alpha > 0 or vae.estimator.needs_control:
        assert_same(slopes(vae.guide), slopes(guide.guide))
    else:
        assert all(weight.grad is None for weight in vae.guide.parameters())
    assert max(float(slope.abs().max()) for slope in mixture.values()) > 0


def test_the_weight_of_the_kl_divergence():
    vae, x = make("reparameterization", "gaussian"), images()
    (whole, _), (weighted, kl) = (
        (step.loss, step.kl)
        for vae.kl_weight in (None, torch.tensor(0.25, dtype=DOUBLE))
        for step in [vae.training_step(x, state={}, alpha=0.5, generator=seeded(1))]
    )
    torch.testing.assert_close(whole - weighted, 0.75 * kl.mean())


@pytest.mark.parametrize(("estimator", "family"), ALONE)
def test_without_a_guide_alpha_changes_nothing(estimator, family):
    vae, x = make(estimator, family, guide=False), images()
    other = copy.deepcopy(vae)
    step(vae, x).loss.backward()
    step(other, x, alpha=0.7).loss.backward()
    assert_same(slopes(other), slopes(vae), 0.0)


def test_values_of_a_step():
    vae, x = make("reparameterization", "gaussian"), images()
    result = step(vae, x, alpha=0.4)
    q = vae.posterior(x)
    torch.testing.assert_close(result.kl, q.kl_divergence().detach())
    log_likelihood = vae.decoder.objective(x.flatten(1)).sampled(q.rsample(1, seeded(121)))[0]
    torch.testing.assert_close(result.log_likelihood, log_likelihood.detach())
    assert isinstance(vae.guide, LinearPrecisionDecoder)
    guide = vae.guide.objective(x.flatten(1)).expectation(q)
    torch.testing.assert_close(result.guide_log_likelihood, guide.detach())
    torch.testing.assert_close(result.loss, (q.kl_divergence() - log_likelihood - guide).mean())
    for tensor in (result.log_likelihood, result.kl, result.guide_log_likelihood):
        assert tensor is not None
        assert tensor.shape == (BATCH,)
        assert not tensor.requires_grad


@pytest.mark.parametrize("family", get_args(PosteriorFamily))
@pytest.mark.parametrize("architecture", ["plain", "strided"])
def test_a_guide_alone_trains_the_encoder_and_hard_samples_the_decoder(family, architecture):
    """The "None" rows."""
    vae, x = make(None, family, architecture), images(architecture)
    guide, decoder = separate_gradients(vae, x)
    seen = []
    vae.decoder.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    result = step(vae, x, alpha=1.0)
    result.loss.backward()
    assert_same(slopes(vae.encoder), slopes(guide.encoder))
    assert_same(slopes(vae.guide), slopes(guide.guide))
    assert_same(slopes(vae.decoder), slopes(decoder.decoder))
    (z,) = seen
    assert not z.requires_grad
    if family == "bernoulli":
        assert set(z.unique().tolist()) <= {0.0, 1.0}
    assert result.state == {}


def buffers(module):
    return {name: tensor.clone() for name, tensor in module.named_buffers()}


@pytest.mark.parametrize(("estimator", "family"), [*SERVED, (None, "gaussian"), (None, "bernoulli")])
@pytest.mark.parametrize("guide", [True, False])
def test_frozen(estimator, family, guide):
    if not guide and (estimator, family) not in ALONE:
        return
    vae, x = make(estimator, family, "strided", guide=guide), images("strided")
    vae.train()
    vae.encoder.eval()
    encoder_before, decoder_before = buffers(vae.encoder), buffers(vae.decoder)
    seen = []
    vae.decoder.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    if vae.guide is not None:
        vae.guide.register_forward_hook(lambda *_: pytest.fail("the guide was used"))
    state = {"average": torch.tensor(-5.0), "weight": torch.tensor(0.5)} if estimator == "reinforce" else {}
    result = vae.training_step(x, state=state, alpha=0.6, frozen=True, generator=seeded(123))
    result.loss.backward()
    assert all(weight.grad is None for weight in vae.encoder.parameters())
    assert result.guide_log_likelihood is None
    assert vae.guide is None or all(weight.grad is None for weight in vae.guide.parameters())
    assert all(torch.equal(encoder_before[name], tensor) for name, tensor in vae.encoder.named_buffers())
    assert any(not torch.equal(decoder_before[name], tensor) for name, tensor in vae.decoder.named_buffers())
    assert result.state == state

    # The decoder's gradient is that of the density at genuine samples.
    (z,) = seen
    if family == "bernoulli":
        assert set(z.unique().tolist()) <= {0.0, 1.0}
    other = copy.deepcopy(vae)
    other.zero_grad()
    (-other.decoder.objective(x.flatten(1)).sampled(z[None]).mean()).backward()
    assert_same(slopes(vae.decoder), slopes(other.decoder))
    assert max(float(slope.abs().max()) for slope in slopes(vae.decoder).values()) > 0


@pytest.mark.parametrize(("estimator", "family"), [*SERVED, (None, "gaussian"), (None, "bernoulli")])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_running_statistics_are_those_of_one_pass(estimator, family, alpha):
    """However often the estimator evaluates the decoder; and the next step counts again."""
    vae, x = make(estimator, family, "strided"), images("strided")
    vae.train()
    expected = copy.deepcopy(vae)
    for seed in (1, 2):
        passes: list[torch.Tensor] = []
        hook = vae.decoder.network.register_forward_pre_hook(lambda _, inputs, seen=passes: seen.append(inputs[0]))
        step(vae, x, seed=seed, alpha=alpha)
        hook.remove()
        expected.encoder(x)
        expected.decoder.network(passes[0])
        for part in ("encoder", "decoder"):
            found, wanted = buffers(getattr(vae, part)), buffers(getattr(expected, part))
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[name], wanted[name]) for name in found)
    norms = [m for m in vae.decoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(norm.track_running_stats and not norm._forward_hooks for norm in norms)


def test_batch_norm_counts_again_after_an_error():
    vae, x = make("local-expectation", "bernoulli", "strided"), images("strided")
    hook = vae.decoder.network[-1].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        step(vae, x)
    hook.remove()
    norms = [m for m in vae.decoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.track_running_stats and not norm._forward_hooks for norm in norms)
    before = buffers(vae.decoder)
    vae.eval()
    step(vae, x)
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.decoder.named_buffers())


@pytest.mark.parametrize("family", get_args(PosteriorFamily))
def test_an_exact_decoder_needs_no_samples(family):
    vae, x = make("silent", family, guide=False), images()
    state = torch.get_rng_state()
    first, second = (vae.training_step(x, state={}) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.loss, second.loss)
    q = vae.posterior(x)
    assert isinstance(vae.decoder, FixedVarianceDecoder)
    bound = vae.decoder.objective(x.flatten(1)).expectation(q) - q.kl_divergence()
    torch.testing.assert_close(first.loss, -bound.mean())


@pytest.mark.parametrize("factor", [0.0, 0.1, 1 / 3, 0.999, 1.0])
def test_scale_gradient_keeps_the_value_bit_for_bit(factor):
    numbers = torch.randn(10_000, generator=seeded(125)) * torch.logspace(-40, 30, 10_000)
    tensor = numbers.clone().requires_grad_()
    scaled = scale_gradient(tensor, factor)
    assert torch.equal(scaled, numbers)
    if factor == 0:
        assert not scaled.requires_grad
    else:
        (slope,) = torch.autograd.grad(scaled.sum(), tensor)
        torch.testing.assert_close(slope, torch.full_like(slope, factor))


@pytest.mark.parametrize(
    ("estimator", "family"),
    [
        (name, family)
        for name, kind in REGISTRY.items()
        for family in get_args(PosteriorFamily)
        if not kind.supports(FAMILIES[family])
    ],
)
def test_estimator_and_family_must_fit(estimator, family):
    with pytest.raises(EstimatorError, match=rf"{estimator}.*{family}"):
        make(estimator, family)
    parts = make(None, family)
    with pytest.raises(EstimatorError, match=rf"{estimator}.*{family}"):
        VAE(parts.encoder, FAMILIES[family], parts.decoder, None, parts.guide, create(estimator))


def test_something_must_train_the_encoder():
    with pytest.raises(EstimatorError, match="guide"):
        make(None, "gaussian", guide=False)


CONTROLLED = [(name, family) for name, family in SERVED if REGISTRY[name].needs_control]


@pytest.mark.parametrize(("name", "family"), CONTROLLED)
def test_a_control_needs_a_guide(name, family):
    with pytest.raises(EstimatorError, match=rf"guide.*'{name}'"):
        make(name, family, guide=False)


@pytest.mark.parametrize(("name", "family"), CONTROLLED)
def test_a_reported_decoder_with_an_expectation_is_its_own_control(name, family):
    vae, x = make(name, family, guide=False, exact_decoder=True), images()
    q, objective = vae.posterior(x), vae.decoder.objective(x.flatten(1))
    control = vae.control(x.flatten(1), q)
    assert control is not None
    assert torch.equal(control.expectation(q), objective.expectation(q))
    step(vae, x).loss.backward()
    # The decoder gets its sampled gradient once, and none from being the control.
    found, samples = slopes(vae.decoder), create(name).evaluations(LATENT_DIM)
    vae.zero_grad()
    z = (q.rsample if name.startswith("reparameterization") else q.sample)(samples, seeded(121))
    objective.sampled(z.detach()).mean().neg().backward()
    assert_same(found, slopes(vae.decoder))


def sampled_guide(guide_estimator, family, estimator=None):
    """A VAE whose guide has precisions far from 0 and a sampled gradient."""
    parts = make(estimator, family)
    assert isinstance(parts.guide, LinearPrecisionDecoder)
    with torch.no_grad():
        parts.guide.precision_head.weight.mul_(0.05)
        parts.guide.precision_head.bias.fill_(1.0)
    return VAE(
        parts.encoder, parts.family, parts.decoder, parts.estimator, parts.guide, create(guide_estimator)
    ).double()


@pytest.mark.parametrize(("guide_estimator", "family"), ALONE)
def test_another_estimator_may_steer_by_the_guide(guide_estimator, family):
    """Eq. 8 with a sampled gradient of the guide, the comparison that isolates zero variance: step after step the
    gradients are those of the estimator by itself, its state included."""
    vae, x = sampled_guide(guide_estimator, family), images()
    other = copy.deepcopy(vae)
    assert vae.guide_estimator is not None
    assert other.guide is not None
    state, own = vae.initial_state(CPU, BATCH), vae.guide_estimator.initial_state(CPU, BATCH)
    assert state.keys() == {f"guide.{name}" for name in own}
    index = torch.arange(BATCH)
    for seed in (1, 2, 3):
        vae.zero_grad()
        other.zero_grad()
        result = vae.training_step(x, state=state, alpha=1.0, index=index, generator=seeded(seed))
        result.loss.backward()
        generator, q = seeded(seed), other.posterior(x)
        q.sample(1, generator)  # the decoder's
        value, surrogate, own = vae.guide_estimator(
            q, other.guide.objective(x.flatten(1)), index=index, generator=generator, state=own
        )
        (q.kl_divergence() - surrogate).mean().backward()
        assert_same(slopes(vae.encoder), slopes(other.encoder))
        assert_same(slopes(vae.guide), slopes(other.guide))
        torch.testing.assert_close(result.guide_log_likelihood, value)
        state = result.state
        assert all(torch.equal(state[f"guide.{name}"], own[name]) for name in own)


def test_both_estimators_keep_their_state():
    vae, x = sampled_guide("reinforce", "bernoulli", "reinforce"), images()
    state = vae.initial_state(CPU, BATCH)
    assert set(state) == {"average", "weight", "guide.average", "guide.weight"}
    result = vae.training_step(x, state=state, alpha=0.5, generator=seeded(128))
    assert result.guide_log_likelihood is not None
    for prefix, value in (("", result.log_likelihood), ("guide.", result.guide_log_likelihood)):
        average = result.state[f"{prefix}average"] / result.state[f"{prefix}weight"]
        assert float(average) == pytest.approx(float(value.mean()), rel=1e-5)
    second = vae.training_step(x, state=result.state, generator=seeded(129))
    unguided = second.state
    assert torch.equal(unguided["guide.average"], result.state["guide.average"])
    expected = (0.99 * 0.01 * result.log_likelihood.mean() + 0.01 * second.log_likelihood.mean()) / (0.99 * 0.01 + 0.01)
    assert float(unguided["average"] / unguided["weight"]) == pytest.approx(float(expected), rel=1e-5)
    frozen = vae.training_step(x, state=unguided, frozen=True, generator=seeded(129)).state
    assert frozen == unguided


@pytest.mark.parametrize(("name", "family"), CONTROLLED)
def test_a_guide_has_no_control(name, family):
    with pytest.raises(EstimatorError, match=rf"guide_estimator: '{name}'"):
        sampled_guide(name, family)
