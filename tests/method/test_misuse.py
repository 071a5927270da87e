"""Impossible arguments of public names: an error of a known type names the argument, its value and how to fix it."""

import math
import re
from collections.abc import Callable
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
    [("a", "expected a weight"), (None, "expected a weight"), (torch.full((B,), 0.5), r"\[B, 1\], got shape \[5\]")],
)
def test_weights(guided, alpha, message):
    moments = [torch.zeros(B, K)] * 2 if isinstance(guided, SilentGuide) else []
    with pytest.raises(ValueError, match=f"alpha: .*{message}"):
        guided(X, *moments, alpha=alpha)


OTHERS = {
    "another device": (
        lambda: fixed().objective(PIXELS.to("meta")),
        ValueError,
        "x: expected a tensor on cpu, as the weights, got meta",
    ),
    "an image of another type": (
        lambda: model()(X.double()),
        TypeError,
        "x: expected torch.float32, the type of the decoder's weights, got torch.float64",
    ),
    "no posterior": (lambda: fixed().objective(PIXELS).expectation(PIXELS), TypeError, "q: expected .* Posterior"),
    "noise": (lambda: fixed().objective(PIXELS, "a"), ValueError, "noise_variance: expected a number of 0 or more"),
    "NaN mean": (lambda: FixedVarianceDecoder(K, D, 0.1, HALF * math.nan), ValueError, "mean: expected finite"),
    "no module": (lambda: model(network=lambda x: x), TypeError, "encoder: expected an instance of Module"),
    "no decoder": (
        lambda: model(decoder=nn.Linear(K, D)),
        TypeError,
        "decoder: expected an instance of Decoder.*FixedVarianceDecoder is one",
    ),
    "no guide": (lambda: model(guide=nn.Linear(K, D)), TypeError, "guide: expected an instance of Decoder"),
    "a module as a guide": (
        lambda: SilentGuide(K, decoder=LINEAR),
        TypeError,
        "decoder: expected an instance",
    ),
    "a seed": (
        lambda: model("reparameterization")(X, generator=0),
        TypeError,
        "generator: expected a torch.Generator or None, got 0; seed one with manual_seed",
    ),
    "no state": (lambda: model().training_step(X, state=None), TypeError, "state: .*initial_state\\(\\) makes one"),
    "options": (lambda: estimators.create("rloo", WORDS), TypeError, "options: expected an instance of Mapping"),
    "an option in words": (lambda: estimators.create("rloo", {"samples": TEXT}), EstimatorError, "samples: .* got '2'"),
    "a decay in words": (lambda: estimators.create("reinforce", {"decay": TEXT}), EstimatorError, "decay: .* got '2'"),
    "a tensor as q": (lambda: estimate("silent", PIXELS), EstimatorError, "q: expected an instance of Posterior"),
    "a function": (lambda: estimate("rloo", objective=torch.sum), EstimatorError, "objective: expected an instance"),
    "a state": (lambda: estimate("rloo", state=[1]), EstimatorError, "state: expected an instance of dict"),
    "an objective of another shape": (
        lambda: estimate("reparameterization", objective=OfAnotherShape()),
        EstimatorError,
        r"objective: expected values of shape \[S, 5\] at samples, got \[\] in their mean",
    ),
    "an index in words": (
        lambda: estimate("reinforce-per-datum", index=[0]),
        TypeError,
        "index: expected an instance of Tensor",
    ),
    "an index of floats": (
        lambda: estimate("reinforce-per-datum", index=torch.zeros(B)),
        EstimatorError,
        "index: expected whole numbers",
    ),
    "an index beyond the images": (
        lambda: estimate("reinforce-per-datum", index=torch.arange(B)),
        EstimatorError,
        "index: expected numbers below 4, got 0 to 4",
    ),
    "an image twice": (
        lambda: model("reinforce-per-datum", images=B)(X, index=torch.tensor([0, 1, 2, 1, 3])),
        EstimatorError,
        "index: expected different numbers, got 1 more than once",
    ),
    "images of another size": (
        lambda: model().elbo(X[..., :2]),
        ShapeError,
        r"x: expected 6 numbers for each image, got \[5, 1, 2, 2\]",
    ),
    "images without values": (
        lambda: evaluate(model(), X.to("meta"), 17),
        ValueError,
        "x: expected images with values",
    ),
    "a pixel that is no number": (
        lambda: model()(X.where(X > 0, math.nan)),
        NonFiniteError,
        "x: expected finite numbers, got nan",
    ),
    "an infinite pixel": (
        lambda: fixed().objective(PIXELS.where(PIXELS > 0, math.inf)),
        NonFiniteError,
        "x: expected finite numbers, got inf",
    ),
    "bits of another coding": (
        lambda: BernoulliDecoder(K, D).objective(2 * PIXELS - 1),
        ValueError,
        r"x: expected bits or their probabilities, in \[0, 1\], got -1 to 0.8",
    ),
    "weights of half precision": (
        lambda: model().bfloat16()(X.bfloat16()),
        TypeError,
        "expected torch.bfloat16, the type of the decoder's weights, got torch.float32; leave the decoder in float32",
    ),
    "no model": (lambda: evaluate(LINEAR, X, 17), TypeError, "vae: expected an instance of VAE"),
    "no estimator": (
        lambda: gradient_variance(model(), WORDS, X, {}, 2),
        TypeError,
        "estimator: expected an instance of Estimator",
    ),
    "nothing to register": (lambda: estimators.register(WORDS), EstimatorError, "estimator: expected a subclass"),
    "no standardization": (lambda: LinearPrecisionDecoder(K, WORDS), TypeError, "standardization: expected an inst"),
    "a posterior of another size": (
        lambda: LinearPrecisionDecoder(K, SCALE).control(PIXELS, POSTERIORS["gaussian"]),
        ShapeError,
        "q: expected one of 3 latent variables, got 4",
    ),
    "another type of weights": (
        lambda: Q.linear_variance(torch.ones(D, K).double()),
        TypeError,
        "weight: expected torch.float32, the parameters' type, got torch.float64",
    ),
    "a bound in words": (lambda: bits_per_dimension(TEXT, D, 17), TypeError, "elbo: expected numbers, got '2'"),
    "no time": (lambda: SilentSchedule().weight(math.nan), ValueError, "epochs_done: expected a number of 0 or more"),
    "a factor": (lambda: scale_gradient(X, math.nan), ValueError, "factor: expected a finite number, got nan"),
    "a scale": (
        lambda: ConvolutionalDecoder("plain", K, SHAPE, (2, 2, 2, 2, 2), SCALE, last_layer_scale=-1),
        ValueError,
        "last_layer_scale: expected a number of 0 or more, got -1",
    ),
    "images of a limit": (
        lambda: limits.pca_limit(GREY / 17, GREY, 17, 2, 0.1),
        ValueError,
        "images: expected a NumPy array of whole grey levels",
    ),
    "too many levels": (lambda: limits.pca_limit(GREY, GREY, 4, 2, 0.1), ValueError, "grey levels below 4, got 15"),
    "pixels of a limit": (
        lambda: limits.pca_limit(GREY, GREY[..., :2], 17, 2, 0.1),
        ValueError,
        "images_evaluated: expected 6 pixels, got 4",
    ),
    "a plateau in words": (lambda: SilentSchedule(plateau_epochs=TEXT), ValueError, "plateau_epochs: .* got '2'"),
    "a plateau": (lambda: SilentSchedule(plateau_epochs=-1), ValueError, "plateau_epochs: .* got -1"),
    "no plateau": (lambda: SilentSchedule(plateau_epochs=math.nan), ValueError, "plateau_epochs: .* got nan"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_arguments(name):
    call, error, message = OTHERS[name]
    with pytest.raises(error, match=message):
        call()


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
