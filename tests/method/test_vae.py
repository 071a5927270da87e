import copy
import math
from typing import get_args

import pytest
import torch
from tests.method.reference import DOUBLE, seeded
from torch import nn

from silent_gradients import (
    Bernoulli,
    ConvolutionalDecoder,
    Decoder,
    FixedVarianceDecoder,
    LinearPrecisionDecoder,
    Standardization,
    scale_gradient,
)
from silent_gradients.estimators import REGISTRY, EstimatorError, create
from silent_gradients.networks import encoder
from silent_gradients.posteriors import FAMILIES
from silent_gradients.vae import VAE
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
@pytest.mark.parametrize(
    ("estimator", "family"), [*SERVED, ("silent", "bernoulli"), (None, "bernoulli"), (None, "gaussian")]
)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_one_backward_pass_is_the_mixture_of_two(architecture, estimator, family, alpha):
    """Eq. 8: the encoder's gradient is alpha g_guide + (1 - alpha) g_decoder, each decoder's its own in full.

    Without an estimator (the "None" rows) hard samples train the decoder, and the guide alone the encoder.
    """
    vae, x = make(estimator, family, architecture), images(architecture)
    guide, decoder = separate_gradients(vae, x)
    step(vae, x, alpha=alpha).loss.backward()
    of_guide, of_decoder = slopes(guide.encoder), slopes(decoder.encoder)
    mixture = {name: alpha * of_guide[name] + (1 - alpha) * of_decoder[name] for name in of_guide}
    assert_same(slopes(vae.encoder), mixture)
    assert_same(slopes(vae.decoder), slopes(decoder.decoder))
    if alpha > 0 or (estimator and vae.estimator.needs_control):
        assert_same(slopes(vae.guide), slopes(guide.guide))
    else:
        assert all(weight.grad is None for weight in vae.guide.parameters())
    assert max(float(slope.abs().max()) for slope in mixture.values()) > 0


def test_a_decoder_s_own_control_is_enough():
    """Without an expectation of its objective."""

    class Controlled(Decoder):
        def __init__(self):
            super().__init__(LATENT_DIM, 16)
            self.linear = FixedVarianceDecoder(LATENT_DIM, 16, 0.1)

        def likelihood(self, z):
            return self.linear.likelihood(z)

        def control(self, x, q):
            return self.linear.objective(x)

    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, LATENT_DIM))
    vae = VAE(encoder, Bernoulli, Controlled(), create("rloo-silent-control")).double()
    encoder.double()
    step(vae, images()).loss.backward()


def test_calls_keep_the_state_and_so_do_saved_models():
    vae, x = sampled_guide("reinforce", "bernoulli", "reinforce"), images()
    other, plain = copy.deepcopy(vae), copy.deepcopy(vae)
    assert not any("estimator_state" in name for name in vae.state_dict())
    state = vae.initial_state(CPU)
    for seed in (1, 2):
        found = vae(x, 0.5, generator=seeded(seed))
        wanted = plain.training_step(x, state=state, alpha=0.5, generator=seeded(seed))
        state = wanted.state
        assert torch.equal(found.loss, wanted.loss)
    other.load_state_dict(vae.state_dict())
    assert other.estimator_state.get().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in other.estimator_state.get().items())
    assert torch.equal(*(each(x, generator=seeded(3)).loss for each in (vae, other)))
    vae.load_state_dict(plain.state_dict(), strict=False)  # of a model that was never called
    assert {value.dtype for value in vae.to(torch.float64).estimator_state.get().values()} == {DOUBLE}


def test_the_state_per_image_is_kept():
    parts = make("reinforce-per-datum", "bernoulli")
    vae = VAE(parts.encoder, parts.family, parts.decoder, parts.estimator, images=9).double()
    vae(images(), index=torch.arange(BATCH) + 4, generator=seeded(1))
    assert vae.estimator_state.get()["image_weight"].nonzero().flatten().tolist() == [4, 5, 6, 7, 8]


def test_bounds_reconstructions_and_samples():
    vae, x = make("reinforce", "bernoulli", "strided"), images("strided")
    vae.train()
    before = buffers(vae)
    bound, again = vae.elbo(x, 300, seeded(1)), vae.elbo(x, 300, seeded(1))
    reconstructed, generated = vae.reconstruct(x, seeded(2)), vae.generate(7, seeded(3))
    assert vae.training
    assert not bound.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.named_buffers())
    torch.testing.assert_close(again, bound)
    vae.eval()
    q, pixels = vae.posterior(x), x.flatten(1)
    sampled = vae.decoder.objective(pixels).sampled(q.sample(300, seeded(1))).mean(0)
    torch.testing.assert_close(bound, (sampled - q.kl_divergence()).detach())
    torch.testing.assert_close(
        reconstructed, vae.decoder.likelihood(q.sample(1, seeded(2))).mean[0].view_as(x).detach()
    )
    codes = Bernoulli(torch.zeros(7, LATENT_DIM, dtype=DOUBLE)).sample(1, seeded(3))
    torch.testing.assert_close(generated, vae.decoder.likelihood(codes).mean[0].detach())
    exact = make("silent", "gaussian", guide=False)
    q = exact.posterior(images())
    wanted = exact.decoder.objective(images().flatten(1)).expectation(q) - q.kl_divergence()
    torch.testing.assert_close(exact.elbo(images()), wanted.detach())


def test_under_autocast_the_posterior_and_the_exact_terms_are_float32():
    vae, x = make("silent", "gaussian").float(), images().float()
    with torch.autocast("cpu", torch.bfloat16):
        result = step(vae, x, alpha=0.5)
        parameters = vae.encoder(x).float()
    q = vae.family(parameters)
    torch.testing.assert_close(result.log_likelihood, vae.decoder.objective(x.flatten(1)).expectation(q).detach())
    torch.testing.assert_close(result.kl, q.kl_divergence().detach())


def test_the_weight_of_the_kl_divergence():
    vae, x = make("reparameterization", "gaussian"), images()
    whole = step(vae, x, alpha=0.4)
    vae.kl_weight = torch.tensor(0.25, dtype=DOUBLE)
    torch.testing.assert_close(whole.loss - step(vae, x, alpha=0.4).loss, 0.75 * whole.kl.mean())


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


CONTROLLED = [(name, family) for name, family in SERVED if REGISTRY[name].needs_control]


@pytest.mark.parametrize(("name", "family"), CONTROLLED)
def test_a_control_needs_a_guide_and_a_guide_has_none(name, family):
    with pytest.raises(EstimatorError, match=rf"guide.*'{name}'"):
        make(name, family, guide=False)
    with pytest.raises(EstimatorError, match=rf"guide_estimator: '{name}'"):
        sampled_guide(name, family)


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
    for prefix, value in (("", result.log_likelihood), ("guide.", result.guide_log_likelihood)):
        average = result.state[f"{prefix}average"] / result.state[f"{prefix}weight"]
        assert float(average) == pytest.approx(float(value.mean()), rel=1e-5)
    unguided = vae.training_step(x, state=result.state, generator=seeded(129)).state
    assert torch.equal(unguided["guide.average"], result.state["guide.average"])
    assert not torch.equal(unguided["average"], result.state["average"])
    assert vae.training_step(x, state=unguided, frozen=True, generator=seeded(129)).state == unguided
