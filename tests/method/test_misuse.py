"""Impossible arguments of public names: an error of a known type names the argument, its value and how to fix it."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from silent_gradients import (
    VAE,
    Bernoulli,
    BernoulliDecoder,
    Binomial,
    Categorical,
    ConvolutionalDecoder,
    FactorAnalysisDecoder,
    FixedVarianceDecoder,
    Gaussian,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    NonFiniteError,
    PositivePrecisionDecoder,
    ShapeError,
    SilentGuide,
    SilentSchedule,
    Standardization,
    TwoLayerDecoder,
    bits_per_dimension,
    estimators,
    evaluate,
    gradient_variance,
    importance_weighted,
    latent_noise,
    limits,
    networks,
    scale_gradient,
)
from silent_gradients.estimators import REGISTRY, EstimatorError
from silent_gradients.evaluation.gradient_variance import Reference, assess, reference_gradient
from silent_gradients.evaluation.latents import traversals
from silent_gradients.posteriors import FAMILIES

K, SHAPE, B = 3, (1, 2, 3), 5
D = math.prod(SHAPE)
HALF = torch.full((D,), 0.5)
SCALE = Standardization(HALF, HALF, 100.0)
X = torch.linspace(0, 0.9, B * D).view(B, *SHAPE)
PIXELS, Q = X.flatten(1), Gaussian(torch.zeros(B, 2 * K))
FLOATS, TENSOR = "expected floating-point numbers, got torch", "expected a tensor, got"
CPU = torch.device("cpu")
EXACT = Reference("silent", torch.zeros(1, B, 2 * K))
LINEAR: Any = nn.Linear(K, D)
WORDS: Any = ["samples"]
TEXT: Any = "2"
CLASS: Any = REGISTRY["rloo"]


def encoder(outputs=2 * K):
    return nn.Sequential(nn.Flatten(), nn.Linear(D, outputs))


DECODERS = {
    "fixed variance": lambda: FixedVarianceDecoder(K, D, 0.1),
    "linear precision": lambda: LinearPrecisionDecoder(K, SCALE),
    "log-linear precision": lambda: LogLinearPrecisionDecoder(K, SCALE),
    "two layers": lambda: TwoLayerDecoder(K, D, 4, "cosine", 0.1),
    "convolutional": lambda: ConvolutionalDecoder("plain", K, SHAPE, (2, 2, 2, 2, 2), SCALE),
    "bits": lambda: BernoulliDecoder(K, D),
}
POSTERIORS = {name: family(torch.zeros(B, 4 * family.parameters_per_latent)) for name, family in FAMILIES.items()}
GREY: Any = np.arange(4 * D, dtype=np.uint8).reshape(4, *SHAPE) % 16


def fixed():
    return FixedVarianceDecoder(K, D, 0.1)


def model(estimator="silent", decoder=None, network=None, **options):
    return VAE(network or encoder(), Gaussian, decoder or fixed(), estimators.create(estimator), **options)


def estimate(name, q=Q, objective=None, state=None, **options):
    made = estimators.create(name)
    state = made.initial_state(CPU, 4) if state is None else state
    return made(q, fixed().objective(PIXELS) if objective is None else objective, state=state, **options)


class OfAnotherShape:
    def sampled(self, z):
        return z.sum((-1, -2))


W = torch.full((D, 4), 0.5)
MATRICES = {
    "linear_variance": ["weight"],
    "total_variance": ["weight"],
    "higher_cumulants": ["weight"],
    "joint_cumulants": ["weight_m", "weight_s"],
    "tilted_moments": ["weight_m", "exponent"],
    "log_characteristic": ["frequency"],
}
HAS = {"tilted_moments": "has_tilted_moments", "log_characteristic": "has_characteristic"}
SIZES = {
    "latent_dim": lambda number: FixedVarianceDecoder(number, D, 0.1),
    "latent_dim, heads": lambda number: LinearPrecisionDecoder(number, SCALE),
    "latent_dim, network": lambda number: ConvolutionalDecoder("plain", number, SHAPE, (2, 2, 2, 2, 2), SCALE),
    "latent_dim, guide": lambda number: SilentGuide(number, X),
    "dimensions": lambda number: BernoulliDecoder(K, number),
    "dimensions, identity": lambda number: Standardization.identity(number, 1.0),
    "dimensions, bits": lambda number: bits_per_dimension(-3.0, number, 17),
    "hidden": lambda number: TwoLayerDecoder(K, D, number, "square", 0.1),
    "levels": lambda number: bits_per_dimension(-3.0, D, number),
    "levels, evaluate": lambda number: evaluate(model(), X, number),
    "levels, scale": lambda number: Standardization.of(X, number),
    "latent_dim, prior": lambda number: Gaussian.prior(2, number, X),
    **{f"samples, {name}": q.sample for name, q in POSTERIORS.items()},
    **{f"samples, path, {name}": q.rsample for name, q in POSTERIORS.items() if q.has_rsample()},
    "units": lambda number: traversals(model(), X, number, 2),
    "steps": lambda number: traversals(model(), X, 2, number),
    "shape": lambda number: ConvolutionalDecoder("plain", K, (number, 2, 3), (2, 2, 2, 2, 2), SCALE),
    "decoder_channels": lambda number: ConvolutionalDecoder("plain", K, SHAPE, (2, 2, 2, 2, number), SCALE),
    "outputs": lambda number: networks.encoder("plain", number, SHAPE, (2, 2, 2)),
    "levels, limit": lambda number: limits.pca_limit(GREY, GREY, number, 2, 0.1),
    "samples, elbo": lambda number: model().elbo(X, number),
    "samples, evaluate": lambda number: evaluate(model(), X, 17, samples=number),
    "samples, importance": lambda number: importance_weighted(model(), X, 17, number),
    "cutoff_epoch": lambda number: SilentSchedule(cutoff_epoch=number),
    "latent_dim, decoder": lambda number: networks.decoder("plain", number, SHAPE, (2, 2, 2, 2, 2)),
    "latent_dim, own guide": lambda number: SilentGuide(number, decoder=fixed()),
    **{f"latent_dim, {name}": lambda k, name=name: estimators.create(name).evaluations(k) for name in REGISTRY},
    "samples, estimator": lambda number: estimators.create("disarm", {"samples": number}),
    "bits_at_once": lambda number: estimators.create("local-expectation", {"bits_at_once": number}),
    "trials": Binomial.of,
}
"""Functions of a whole number, 1 or more but for these."""
LEAST: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "samples": (2, lambda number: estimators.create("rloo", {"samples": number})),
    "classes": (2, Categorical.of),
    "draws": (2, lambda number: gradient_variance(model(), estimators.create("silent"), X, {}, number)),
    "draws, reference": (4, lambda number: reference_gradient(model(), X, number)),
    "draws, bias": (4, lambda number: assess(model(), estimators.create("silent"), X, {}, number, EXACT)),
    "images": (0, lambda number: model(images=number)),
    "images, generated": (0, lambda number: model().generate(number)),
    "images, state": (0, lambda number: model().initial_state(CPU, number)),
    "images, estimator": (0, lambda number: estimators.create("reinforce").initial_state(CPU, number)),
    "images, prior": (0, lambda number: FAMILIES["uniform"].prior(number, 2, X)),
    "latent_dim, limit": (0, lambda number: limits.pca_limit(GREY, GREY, 17, number, 0.1)),
    "latent_dim, factors": (0, lambda number: limits.factor_analysis_limit(GREY, GREY, 17, number)),
    "latent_dim, variance": (0, lambda number: limits.Moments.of(GREY, 17).optimal_variance(number)),
}


@pytest.mark.parametrize("wrong", [-1, 1.5, "3", True, math.nan, "too few"])
@pytest.mark.parametrize("name", [*SIZES, *LEAST])
def test_sizes_are_whole_numbers(name, wrong):
    least, call = LEAST.get(name) or (1, SIZES[name])
    wrong = least - 1 if wrong == "too few" else wrong
    Binomial.of(1)  # equal to True, which is refused all the same
    with pytest.raises(
        ValueError, match=rf"{name.split(',')[0]}: expected a whole number of {least} or more, got {wrong!r}"
    ):
        call(wrong)


POSITIVE = {
    "variance": lambda number: FixedVarianceDecoder(K, D, number),
    "variance, pixels": lambda number: FactorAnalysisDecoder(K, D, number),
    "largest_precision": lambda number: Standardization(HALF, HALF, number),
    "annealing_rate": lambda number: SilentSchedule(annealing_rate=number),
    "variance, limit": lambda number: limits.pca_limit(GREY, GREY, 17, 2, number),
    "temperature": lambda number: estimators.create("gumbel-softmax", {"temperature": number}),
}


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf, "0.1", None])
@pytest.mark.parametrize("name", POSITIVE)
def test_numbers_of_a_range(name, wrong):
    with pytest.raises(ValueError, match=f"{name.split(',')[0]}: expected a positive number, got {wrong!r}"):
        POSITIVE[name](wrong)


@pytest.mark.parametrize("decoder", [FixedVarianceDecoder, FactorAnalysisDecoder])
def test_a_variance_may_be_a_tensor_of_one_number(decoder):
    objectives = [decoder(K, D, variance).objective(PIXELS) for variance in (torch.tensor(0.25), 0.25)]
    for objective in objectives:
        objective.decoder.load_state_dict(objectives[0].decoder.state_dict())
    torch.testing.assert_close(*(objective.expectation(Q) for objective in objectives))


TENSORS = {
    "images": Standardization.of,
    "images, guide": lambda x: SilentGuide(K, x),
    "x": lambda x: fixed().objective(x),
    "x, guide": lambda x: SilentGuide(K, X)(x, torch.zeros(B, K), torch.zeros(B, K), alpha=0),
    "x, step": lambda x: model()(x),
    "x, elbo": lambda x: model().elbo(x),
    "x, reconstruct": lambda x: model().reconstruct(x),
    "x, evaluate": lambda x: evaluate(model(), x, 17),
    "x, importance": lambda x: importance_weighted(model(), x, 17, 2),
    "mean": lambda x: FixedVarianceDecoder(K, D, 0.1, x),
    "mean, bits": lambda x: BernoulliDecoder(K, D, x),
    "scale": lambda x: Standardization(HALF, x, 1.0),
    "z": lambda x: fixed().objective(PIXELS).sampled(x),
    "moments": lambda x: SilentGuide(K, X)(X, x, torch.zeros(B, K), alpha=0.5),
    "tensor": lambda x: scale_gradient(x, 0.5),
    "like": lambda x: Gaussian.prior(2, K, x),
    "like, noise": lambda x: latent_noise.normal((2,), x, None),
    "rate": lambda x: latent_noise.poisson(x, None),
    "x, variance": lambda x: gradient_variance(model(), estimators.create("silent"), x, {}, 2),
    "encoder": lambda x: model(network=Constant(x))(X),
    **{f"parameters, {name}": family for name, family in FAMILIES.items()},
}


def with_weights(q, method, argument):
    """The method as a function of one of its weights."""
    return lambda weight: getattr(q, method)(**dict.fromkeys(MATRICES[method], W) | {argument: weight})


SHAPED: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    **{f"z, decoder, {name}": (make().likelihood, (2, B, K)) for name, make in DECODERS.items()},
    **{f"x, {name}": (make().objective, (B, D)) for name, make in DECODERS.items()},
    **{
        f"x, likelihood, {name}": (make().likelihood(torch.zeros(2, B, K)).log_prob, (B, D))
        for name, make in DECODERS.items()
    },
    "z, objective": (lambda z: fixed().objective(PIXELS).sampled(z), (2, B, K)),
    "mean": (lambda x: FixedVarianceDecoder(K, D, 0.1, x), (D,)),
    **{f"z, {name}": (q.log_prob, (2, B, 4)) for name, q in POSTERIORS.items()},
    **{f"z, prior, {name}": (q.prior_log_prob, (2, B, 4)) for name, q in POSTERIORS.items()},
    **{
        f"{argument}, {method}, {name}": (with_weights(q, method, argument), (D, 4))
        for name, q in POSTERIORS.items()
        for method, arguments in MATRICES.items()
        if method not in HAS or getattr(q, HAS[method])()
        for argument in arguments
    },
}
"""Functions of a tensor, and its shape."""


@pytest.mark.parametrize("name", SHAPED)
def test_tensors_of_another_shape_type_or_device(name):
    call, shape = SHAPED[name]
    argument, right = name.split(",")[0], torch.full(shape, 0.5)
    samples = len(shape) == 3 and "decoder" not in name  # of a decoder alone, the number of images is not known
    wrongs = [right[0], right[None], right[..., :-1], *([right[:, :1]] if samples else [])]
    for wrong in wrongs:
        with pytest.raises(
            ShapeError, match=rf"{argument}: expected shape \[.*\], got {re.escape(str(list(wrong.shape)))}"
        ):
            call(wrong)
    for other, message in ((right.long(), FLOATS), (right.tolist(), f"{TENSOR} list"), ("a", f"{TENSOR} str")):
        with pytest.raises(TypeError, match=f"{argument}: {message}"):
            call(other)
    if "likelihood" not in name and name != "mean":
        with pytest.raises(ValueError, match=f"{argument}: expected a tensor on cpu"):
            call(right.to("meta"))
    call(right)


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, _x):
        return self.value


@pytest.mark.parametrize(
    ("wrong", "message"), [(torch.ones(1, B, K, dtype=torch.long), FLOATS), ([[0.5] * D] * B, f"{TENSOR} list")]
)
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_hold_floating_point_numbers(name, wrong, message):
    with pytest.raises(TypeError, match=f"{name.split(',')[0]}: {message}"):
        TENSORS[name](wrong)


IMAGES = {
    "step": lambda x: model()(x),
    "guided step": lambda x: model("reparameterization", guide=fixed())(x, 0.5),
    "guide": lambda x: SilentGuide(K, X)(x, torch.zeros(0, K), torch.zeros(0, K), alpha=0.5),
    "posterior": lambda x: model().posterior(x),
    "elbo": lambda x: model().elbo(x),
    "reconstruct": lambda x: model().reconstruct(x),
    "evaluate": lambda x: evaluate(model(), x, 17),
    "importance": lambda x: importance_weighted(model(), x, 17, 2),
    "variance": lambda x: gradient_variance(model(), estimators.create("silent"), x, {}, 2),
}


@pytest.mark.parametrize("name", IMAGES)
def test_there_is_an_image(name):
    with pytest.raises(ShapeError, match=r"x: expected shape \[\w, \.\.\.\] with \w of 1 or more, got \[0, 1, 2, 3\]"):
        IMAGES[name](X[:0])


@pytest.mark.parametrize("wrong", [X - 0.5, 300 * X, X * math.nan])
@pytest.mark.parametrize(
    "call", [Standardization.of, lambda x: evaluate(model(), x, 17), lambda x: importance_weighted(model(), x, 17, 2)]
)
def test_bits_per_dimension_are_of_images_in_the_unit_interval(call, wrong):
    with pytest.raises(ValueError, match=r"expected images in \[0, 1\], got .* to .*; divide grey levels"):
        call(wrong)


@pytest.mark.parametrize("guided", [SilentGuide(K, X), model("reparameterization", guide=fixed())])
@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        *[(wrong, f"expected a weight in [0, 1], got {wrong!r}") for wrong in ("a", None, 1.5, -1e-9, math.nan)],
        (torch.full((B,), 0.5), "[B, 1], got shape [5]"),
    ],
)
def test_weights(guided, alpha, message):
    moments = [torch.zeros(B, K)] * 2 if isinstance(guided, SilentGuide) else []
    with pytest.raises(ValueError, match=f"alpha: .*{re.escape(message)}"):
        guided(X, *moments, alpha=alpha)


def convolutional(standardization=SCALE, **options):
    return ConvolutionalDecoder("plain", K, SHAPE, (2, 2, 2, 2, 2), standardization, **options)


def pixels_of(variance):
    return FactorAnalysisDecoder(K, 3, variance)


LEVELS = torch.arange(64.0).view(1, 64)
OTHER = FixedVarianceDecoder(4, D, 0.1)
PER_DATUM, PATHWISE = "reinforce-per-datum", estimators.create("reparameterization")
EMPTY = estimators.create(PER_DATUM).initial_state(CPU)
BOTH = "mean, scale: expected shape [D] for both"
MISTAKES: dict[type[Exception], dict[str, Callable[[], Any]]] = {
    ValueError: {
        "x: expected a tensor on cpu, as the weights, got meta": lambda: fixed().objective(PIXELS.to("meta")),
        "x: expected images with values": lambda: evaluate(model(), X.to("meta"), 17),
        "images in [0, 1], got whole numbers up to 63": lambda: FixedVarianceDecoder(2, 64, 0.1).objective(LEVELS),
        "images: expected images in [0, 1], got 0 to 63": lambda: SilentGuide(K, LEVELS),
        "images: needed to standardise the guide by, got None": lambda: SilentGuide(K),
        "x: expected bits or their probabilities, in [0, 1]": lambda: BernoulliDecoder(K, D).objective(2 * PIXELS - 1),
        "expected 0 for pixels that are bits, got 0.1": lambda: BernoulliDecoder(K, D).objective(PIXELS, 0.1),
        "noise_variance: expected a number of 0 or more, got 'a'": lambda: fixed().objective(PIXELS, "a"),
        "noise_variance: expected a number of 0 or more, got nan": lambda: fixed().objective(PIXELS, math.nan),
        "noise_variance: expected a number of 0 or more, got -1e-09": lambda: fixed().objective(PIXELS, -1e-9),
        "scale: expected positive numbers, got 0": lambda: Standardization(HALF, 0 * HALF, 1.0),
        "scale: expected positive numbers, got inf": lambda: Standardization(HALF, HALF * math.inf, 1.0),
        **{
            f"variance: expected a positive number, got tensor({wrong:g}": partial(
                pixels_of, torch.tensor([1, wrong, 1])
            )
            for wrong in (0.0, -1.0, math.nan, math.inf)
        },
        "activation: expected one of ['square', 'cosine'], got '2'": lambda: TwoLayerDecoder(K, D, 2, TEXT, 0.1),
        "log_term: expected one of ['auto', ": lambda: LinearPrecisionDecoder(K, SCALE, TEXT),
        "log_term: 'exact' needs a gaussian posterior, got laplace": lambda: expectation(
            LinearPrecisionDecoder(4, SCALE, "exact"), "laplace"
        ),
        "latent variables in [0, 1], got gaussian": lambda: expectation(PositivePrecisionDecoder(4, SCALE), "gaussian"),
        "alpha: expected 0 without a guide, got 0.75": lambda: model()(X, torch.tensor(0.75)),
        "moments: expected 2 of shape [5, 3] for a gaussian": lambda: SilentGuide(K, X)(X, torch.zeros(B, K), alpha=1),
        "moments: expected 2 of shape [2, 3]": lambda: SilentGuide(K, X)(X[:2], *[torch.zeros(B, K)] * 2, alpha=1),
        "epochs_done: expected a number of 0 or more": lambda: SilentSchedule().weight(math.nan),
        "factor: expected a finite number, got nan": lambda: scale_gradient(X, math.nan),
        "last_layer_scale: expected a number of 0 or more, got -1": lambda: convolutional(last_layer_scale=-1),
        "images: expected a NumPy array of whole grey": lambda: limits.pca_limit(GREY / 17, GREY, 17, 2, 0.1),
        "grey levels below 4, got 15": lambda: limits.pca_limit(GREY, GREY, 4, 2, 0.1),
        "images_evaluated: expected 6 pixels, got 4": lambda: limits.pca_limit(GREY, GREY[..., :2], 17, 2, 0.1),
        "latent_dim: expected less than 6, got 6": lambda: limits.Moments.of(GREY, 17).optimal_variance(D),
        "plateau_epochs: expected a number of 0 or more, got '2'": lambda: SilentSchedule(plateau_epochs=TEXT),
        "plateau_epochs: expected a number of 0 or more, got -1": lambda: SilentSchedule(plateau_epochs=-1),
        "plateau_epochs: expected a number of 0 or more, got nan": lambda: SilentSchedule(plateau_epochs=math.nan),
    },
    NonFiniteError: {
        "mean: expected finite numbers, got NaN or infinity": lambda: FixedVarianceDecoder(K, D, 0.1, HALF * math.nan),
        "mean: expected finite numbers": lambda: Standardization(HALF * math.nan, HALF, 1.0),
        "x: expected finite numbers, got nan to nan": lambda: model()(X.where(X > 0, math.nan)),
        "x: expected finite numbers, got 0.0310345 to inf": lambda: fixed().objective(
            PIXELS.where(PIXELS > 0, math.inf)
        ),
        "x: expected finite numbers, got -inf to 0.9": lambda: fixed().objective(PIXELS.where(PIXELS > 0, -math.inf)),
    },
    ShapeError: {
        "images: expected shape [N, ...] with N of 1 or more": lambda: SilentGuide(K, X[:0]),
        "x: expected 6 numbers for each image, got [5, 1, 2, 2]": lambda: model().elbo(X[..., :2]),
        f"{BOTH}, got [6], [5]": lambda: Standardization(HALF, HALF[1:], 1.0),
        f"{BOTH}, got [6, 1], [6, 1]": lambda: Standardization(HALF[:, None], HALF[:, None], 1.0),
        "standardization: expected D = 6, got 5": lambda: convolutional(Standardization(HALF[1:], HALF[1:], 1.0)),
        "mean: expected shape [6], got [5]": lambda: BernoulliDecoder(K, D, HALF[1:]),
        "mean: expected shape [6], got [4]": lambda: TwoLayerDecoder(K, D, 2, "square", 0.1, HALF[2:]),
        "variance: expected a number or shape [3], got [2]": lambda: pixels_of(torch.ones(2)),
        "q: expected one of 3 latent variables, got 4": lambda: LinearPrecisionDecoder(K, SCALE).control(
            PIXELS, POSTERIORS["gaussian"]
        ),
        "decoder: expected one of 3 latent variables, got 4": lambda: SilentGuide(K, decoder=OTHER),
        "guide: expected k = 3 and D = 6 as the decoder has, got k = 4": lambda: model(guide=OTHER),
        "parameters: expected shape [B, 2 k] for a gaussian posterior": lambda: Gaussian(torch.zeros(4, 3)),
        "parameters: expected shape [B, 1 k] for a bernoulli posterior": lambda: Bernoulli(torch.zeros(2, 3, 4)),
        "parameters: expected shape [B, 3 G]": lambda: Categorical.of(3)(torch.zeros(2, 10)),
    },
    TypeError: {
        "x: expected torch.float32, the type of the decoder's weights": lambda: model()(X.double()),
        "weights, got torch.float32; leave the decoder in float32 and use autocast": lambda: model().bfloat16()(
            X.bfloat16()
        ),
        "q: expected an instance of Posterior": lambda: fixed().objective(PIXELS).expectation(PIXELS),
        "family: expected a posterior class such as Bernoulli, got '2'; FAMILIES has": lambda: SilentGuide(
            K, X, family=TEXT
        ),
        "family: expected a posterior class such as Bernoulli, got '2'": lambda: VAE(
            encoder(), TEXT, fixed(), PATHWISE
        ),
        "encoder: expected an instance of Module": lambda: model(network=lambda x: x),
        "decoder: expected an instance of Decoder": lambda: model(decoder=nn.Linear(K, D)),
        "guide: expected an instance of Decoder": lambda: model(guide=nn.Linear(K, D)),
        "decoder: expected an instance": lambda: SilentGuide(K, decoder=LINEAR),
        "decoder: expected one with an exact expectation": lambda: SilentGuide(K, decoder=convolutional()),
        "generator: expected a torch.Generator or None, got 0; seed one": lambda: model(PATHWISE.name)(X, generator=0),
        "initial_state() makes one": lambda: model().training_step(X, state=None),
        "options: expected an instance of Mapping": lambda: estimators.create("rloo", WORDS),
        "index: expected an instance of Tensor": lambda: estimate(PER_DATUM, index=[0]),
        "vae: expected an instance of VAE": lambda: evaluate(LINEAR, X, 17),
        "estimator: expected an instance of Estimator": lambda: gradient_variance(model(), WORDS, X, {}, 2),
        "standardization: expected an instance": lambda: LinearPrecisionDecoder(K, WORDS),
        "weight: expected torch.float32, the parameters' type": lambda: Q.linear_variance(torch.ones(D, K).double()),
        "elbo: expected numbers, got '2'": lambda: bits_per_dimension(TEXT, D, 17),
    },
    EstimatorError: {
        "samples: expected a whole number of 1 or more, got '2'": lambda: estimators.create(
            "disarm", {"samples": TEXT}
        ),
        "decay: expected a number in [0, 1), got '2'": lambda: estimators.create("reinforce", {"decay": TEXT}),
        "q: expected an instance of Posterior": lambda: estimate("silent", PIXELS),
        "objective: expected an instance": lambda: estimate("rloo", objective=torch.sum),
        "state: expected an instance of dict": lambda: estimate("rloo", state=[1]),
        "objective: expected values of shape [S, 5] at samples, got [] in their mean": lambda: estimate(
            "reparameterization", objective=OfAnotherShape()
        ),
        "index: expected whole numbers, [5], got [5] of torch.float32": lambda: estimate(PER_DATUM, index=HALF[1:]),
        "index: expected whole numbers, [5], got [1]": lambda: estimate(PER_DATUM, index=torch.arange(1)),
        "index: expected whole numbers, [5], got [5, 1]": lambda: estimate(PER_DATUM, index=torch.arange(B)[:, None]),
        "index: expected numbers below 4, got 0 to 4": lambda: estimate(PER_DATUM, index=torch.arange(B)),
        "needs initial_state(device, images)": lambda: estimate(PER_DATUM, index=torch.arange(B), state=EMPTY),
        "index: expected different numbers, got 1 more than once": lambda: model(PER_DATUM, images=B)(
            X, index=torch.tensor([0, 1, 2, 1, 3])
        ),
        "estimator: expected a subclass": lambda: estimators.register(WORDS),
        "estimators.create('rloo') makes one": lambda: VAE(encoder(), Gaussian, fixed(), CLASS),
        "estimator: expected an instance, got '2'": lambda: VAE(encoder(), Gaussian, fixed(), TEXT),
        "guide_estimator: expected an instance": lambda: model(guide=fixed(), guide_estimator=CLASS),
        "a VAE needs an estimator or a guide": lambda: VAE(encoder(), Gaussian, fixed(), None),
    },
}
"""Calls by their error and a part of its message."""


def expectation(decoder, family):
    return decoder.objective(PIXELS).expectation(POSTERIORS[family])


@pytest.mark.parametrize(
    ("error", "message"), [(error, message) for error, calls in MISTAKES.items() for message in calls]
)
def test_other_arguments(error, message):
    with pytest.raises(error, match=re.escape(message)):
        MISTAKES[error][message]()


def test_shapes_of_tensors_without_values_are_known():
    """On the device ``meta``, which has no autocast, an expectation has its shape."""
    decoder, q = fixed().to("meta"), Bernoulli(torch.zeros(B, K, device="meta"))
    assert decoder.objective(torch.zeros(B, D, device="meta")).expectation(q).shape == (B,)


def test_an_argument_given_twice_is_refused_as_by_any_function():
    q = Gaussian(torch.zeros(2, 6))
    with pytest.raises(TypeError, match="multiple values"):
        q.sample(1, samples=2)  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional arguments"):
        q.sample(1, None, None)  # type: ignore[call-arg]
