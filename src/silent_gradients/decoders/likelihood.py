"""The contract of decoders: likelihood and objective."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm

from silent_gradients import checks
from silent_gradients.checks import NonFiniteError, ShapeError
from silent_gradients.posteriors.contract import Posterior


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Context manager: no autocast, in which a closed form keeps two digits of a gradient."""
    enabled = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if enabled else nullcontext()


def in_forward_mode() -> bool:
    """Return True while derivatives are computed in forward mode, for which own functions have no rule."""
    return forward_ad._current_level >= 0


@contextmanager
def counted_passes(network: nn.Module, passes: Literal[0, 1]) -> Iterator[None]:
    """Context manager: BatchNorm's running statistics take in a network's first pass, or none, and no further one.

    Estimators evaluate a decoder a different number of times, also at points that are not samples. For every
    estimator, evaluation uses the statistics of one pass per training step.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]

    def close(norm: _BatchNorm, *_: object) -> None:
        norm.track_running_stats = False

    hooks = [norm.register_forward_hook(close) for norm in norms]
    for norm in norms:
        norm.track_running_stats = passes > 0
    try:
        yield
    finally:
        for hook, norm in zip(hooks, norms, strict=True):
            hook.remove()
            norm.track_running_stats = True


@runtime_checkable
class Objective(Protocol):
    """log p(x|z) of fixed images, in nats and summed over the D dimensions, as a function of z."""

    def sampled(self, z: Tensor) -> Tensor:
        """Return the objective at z [S, B, k], shape [S, B]."""


@runtime_checkable
class ExactObjective(Objective, Protocol):
    """An objective whose expectation under a mean-field posterior is computed in closed form."""

    def is_exact(self, q: Posterior) -> bool:
        """Return whether the closed form is the true expectation under ``q`` (a log term may be approximate)."""

    def expectation(self, q: Posterior) -> Tensor:
        """Return E_q of the objective in nats, without any sampling, shape [B]."""


class Likelihood(Protocol):
    """p(x|z) at z [S, B, k]."""

    @property
    def mean(self) -> Tensor:
        """Mean of x, [S, B, D]."""

    def log_prob(self, x: Tensor, noise_variance: float = 0.0) -> Tensor:
        """Return log p(x|z) in nats of x [B, D], summed over D, [S, B]."""


class GaussianLikelihood(NamedTuple):
    """p(x|z) = N(mean, precision^-2): a precision is the reciprocal of a standard deviation.

    Attributes:
        mean: [S, B, D].
        log_precision: log |precision|, broadcastable to [S, B, D].
        precision_squared: Square of the precision, broadcastable to [S, B, D].
    """

    mean: Tensor
    log_precision: Tensor
    precision_squared: Tensor

    def log_prob(self, x: Tensor, noise_variance: float | Tensor = 0.0) -> Tensor:
        """Return log p(x|z) in nats of x [B, D], summed over D, [S, B]; see ``Decoder.objective`` for the noise."""
        checks.shaped("x", x, *self.mean.shape[1:])
        error = (x - self.mean).square()
        if isinstance(noise_variance, Tensor) or noise_variance:
            error = error + noise_variance
        weighted = error * self.precision_squared
        return (self.log_precision - 0.5 * weighted).sum(-1) - 0.5 * x.shape[-1] * math.log(2 * math.pi)


@dataclass(frozen=True)
class Standardization:
    """Per-dimension location and scale of the training data, in which a decoder's outputs are expressed.

    Attributes:
        mean: [D], mean of the dequantized training data.
        scale: [D], its standard deviation.
        largest_precision: Smooth upper bound of a nonlinear decoder's precision, a little above the precision of a
            constant pixel (levels * sqrt(12), from the dequantization noise).

    Raises:
        ShapeError: Mean and scale are not two vectors of the same length.
        NonFiniteError: A mean is NaN or infinite.
        ValueError: A scale or the largest precision is not positive and finite.
    """

    mean: Tensor
    scale: Tensor
    largest_precision: float

    def __post_init__(self) -> None:
        checks.floats("mean", self.mean)
        checks.floats("scale", self.scale)
        if self.mean.ndim != 1 or self.mean.shape != self.scale.shape:
            raise ShapeError(
                f"mean, scale: expected shape [D] for both, got {list(self.mean.shape)}, {list(self.scale.shape)}"
            )
        if not self.mean.isfinite().all():
            raise NonFiniteError("mean: expected finite numbers, got NaN or infinity")
        if not ((self.scale > 0) & self.scale.isfinite()).all():
            raise ValueError(f"scale: expected positive numbers, got {float(self.scale.min())} for the least")
        checks.number("largest_precision", self.largest_precision, "a positive number")

    @classmethod
    def identity(cls, dimensions: int, largest_precision: float) -> Standardization:
        """Return the identity: outputs are in the units of the images."""
        checks.whole("dimensions", dimensions)
        return cls(torch.zeros(dimensions), torch.ones(dimensions), largest_precision)

    @classmethod
    def of(cls, images: Tensor, levels: int = 256) -> Standardization:
        """Return the standardization of dequantized training images [N, ...] in [0, 1] of so many grey levels.

        No scale is below that of the dequantization noise, 1 / (levels sqrt 12).

        Raises:
            ShapeError: There is no image.
            TypeError: The images are no floating-point numbers.
            ValueError: The images are not in [0, 1], or ``levels`` is not a whole number of 1 or more.
        """
        check_images("images", images)
        least = 1 / (checks.whole("levels", levels) * math.sqrt(12))
        pixels = images.detach().flatten(1).float()
        return cls(pixels.mean(0), pixels.std(0, correction=0).clamp_min(least), 1.13 / least)


def dimensions_of(standardization: Standardization) -> int:
    """Return D; raise ``TypeError`` for what is no standardization."""
    checks.instance("standardization", standardization, Standardization, "Standardization.of(images) makes one")
    return len(standardization.mean)


def _whole(images: Tensor, largest: float) -> bool:
    """Return whether images [...] with this largest value are whole numbers, such as grey levels."""
    return largest > 1.5 and bool((images == images.round()).all())


def check_images(argument: str, images: Tensor) -> None:
    """Raise an error for what are no images [N, ...] in [0, 1]; waits for the device.

    Single values may lie outside, as those of a quadrature over the dequantization noise do.

    Raises:
        ShapeError: There is no image.
        TypeError: They are no floating-point numbers.
        ValueError: Their mean is outside [0, 1] or NaN, or they are whole numbers.
    """
    batch_of(images, argument)
    if images.is_meta:
        raise ValueError(f"{argument}: expected images with values, got a tensor on meta")
    least, largest = map(float, images.detach().aminmax())
    if not 0 <= images.mean() <= 1 or _whole(images, largest):
        raise ValueError(f"{argument}: expected images in [0, 1], got {least:g} to {largest:g}; {_SCALED}")


def batch_of(images: Tensor, argument: str = "x") -> int:
    """Return the number of images [N, ...] of floating-point numbers, 1 or more.

    Raises:
        ShapeError: There is no image.
        TypeError: They are no tensor of floating-point numbers.
    """
    if checks.floats(argument, images, _SCALED).ndim < 2 or not images.numel():
        raise ShapeError(f"{argument}: expected shape [N, ...] with N of 1 or more, got {list(images.shape)}")
    return len(images)


_SCALED = "divide grey levels by their number: (y + u) / levels with u uniform on [0, 1)"
"""How to fix images that are whole numbers."""


def _fitting_samples(decoder: Decoder, z: Tensor) -> Tensor:
    return decoder.in_own_type("z", checks.shaped("z", z, "S", "B", decoder.latent_dim))


def _fitting_posterior(decoder: Decoder, q: Posterior) -> Posterior:
    checks.instance("q", q, Posterior)
    if q.latent_dim != decoder.latent_dim:
        raise ShapeError(f"q: expected one of {decoder.latent_dim} latent variables, got {q.latent_dim}")
    return q


class Decoder(checks.Guarded, nn.Module, ABC, arguments={"z": _fitting_samples, "q": _fitting_posterior}):
    """p(x|z) with z of k latent variables (``latent_dim``) and x of D ``dimensions``.

    Raises:
        ValueError: k or D is not a whole number of 1 or more.
    """

    def __init__(self, latent_dim: int, dimensions: int) -> None:
        super().__init__()
        self.latent_dim = checks.whole("latent_dim", latent_dim)
        self.dimensions = checks.whole("dimensions", dimensions)

    @abstractmethod
    def likelihood(self, z: Tensor) -> Likelihood:
        """Return the likelihood at z [S, B, k]."""

    def objective(self, x: Tensor, noise_variance: float = 0.0) -> Objective:
        """Return log p(x|z) of the images x [B, D] as a function of z.

        It is averaged over independent noise on every dimension, of mean 0 and ``noise_variance``: log p is quadratic
        in x, so the average of (x - m)^2 s^2 is (x - m)^2 s^2 + variance s^2. x = (y + 1/2) / levels and
        1 / (12 levels^2) integrate out the dequantization noise.

        Raises:
            NonFiniteError: x holds NaN or infinity; looked for on the CPU alone, like whole numbers.
            ShapeError: x is not [B, D].
            TypeError: x is not of the weights' floating-point type.
            ValueError: ``noise_variance`` is negative or no number, or x holds whole numbers such as grey levels.
        """
        return SampledObjective(self, x, noise_variance)

    def no_images(self) -> Tensor:
        """Return [0, D]: an objective of no images computes nothing and shows what it can do."""
        weight = next(self.parameters(), torch.empty(0))
        return torch.empty(0, self.dimensions, dtype=weight.dtype, device=weight.device)

    def in_own_type(self, argument: str, values: Tensor) -> Tensor:
        """Return values [...] in the type of the weights; half precision, as autocast makes it, is converted.

        Raises:
            TypeError: The values are no floating-point numbers, or float32 and float64 are mixed.
            ValueError: They are on another device than the weights.
        """
        checks.floats(argument, values, *[_SCALED] * (argument == "x"))
        weight = next(self.parameters(), values)
        if values.device != weight.device:
            raise ValueError(f"{argument}: expected a tensor on {weight.device}, as the weights, got {values.device}")
        own = weight.dtype
        if values.dtype == own:
            return values
        if values.dtype.itemsize < min(own.itemsize, 4):
            return values.to(own)
        fix = "convert one of them" if own.itemsize >= 4 else "leave the decoder in float32 and use autocast"
        raise TypeError(f"{argument}: expected {own}, the type of the decoder's weights, got {values.dtype}; {fix}")

    def control(self, x: Tensor, q: Posterior) -> Objective:
        """Return a function of z like the objective of x [B, D], with an exact expectation if the decoder has one.

        It is the objective itself, unless the objective's expectation under q is an approximation.
        """
        return self.objective(x)


def readable(x: Tensor) -> bool:
    """Return whether a check may read values [...]: not on a GPU, which would be waited for, and not while traced."""
    traced = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x)
    return x.device.type == "cpu" and x.numel() > 0 and not traced


@dataclass(frozen=True)
class SampledObjective:
    """The objective of any decoder for images x [B, D], known at samples of z only; see ``Decoder.objective``."""

    decoder: Decoder
    x: Tensor
    noise_variance: float = 0.0

    def __post_init__(self) -> None:
        """Check the arguments.

        Raises:
            NonFiniteError, ShapeError, TypeError, ValueError: See ``Decoder.objective``.
        """
        object.__setattr__(self, "x", self.decoder.in_own_type("x", self.x))
        checks.shaped("x", self.x, "B", self.decoder.dimensions)
        if readable(self.x):
            least, largest = map(float, self.x.detach().aminmax())
            if not (math.isfinite(least) and math.isfinite(largest)):
                raise NonFiniteError(f"x: expected finite numbers, got {least:g} to {largest:g}")
            self.check_range(least, largest)
        checks.number("noise_variance", self.noise_variance, "a number of 0 or more")

    def check_range(self, least: float, largest: float) -> None:
        """Raise ``ValueError`` if the values of x, finite and from ``least`` to ``largest``, are those of no images."""
        # Small arrays may well be whole numbers.
        if self.x.numel() >= 32 and _whole(self.x, largest):
            raise ValueError(f"x: expected images in [0, 1], got whole numbers up to {largest:g}; {_SCALED}")

    def sampled(self, z: Tensor) -> Tensor:
        """Return log p(x|z) in nats at z [S, B, k], shape [S, B].

        Raises:
            ShapeError: z has another shape.
            TypeError: z is not of the weights' type.
        """
        checks.shaped("z", z, "S", len(self.x), self.decoder.latent_dim)
        return self.decoder.likelihood(z).log_prob(self.x, self.noise_variance)


class ClosedFormObjective(SampledObjective, ABC):
    """An objective with an expectation: a subclass writes ``closed_form`` and ``is_exact``."""

    def expectation(self, q: Posterior) -> Tensor:
        """Return E_q log p(x|z) in nats, shape [B], without any sampling; outside autocast, in float32 at least.

        Raises:
            ShapeError: q has another number of images or latent variables.
            TypeError: q is no posterior, not of the weights' type, or that is float16 or bfloat16.
        """
        checks.instance("q", q, Posterior)
        expected, found = [len(self.x), self.decoder.latent_dim], [len(q.parameters), q.latent_dim]
        if found != expected:
            raise ShapeError(f"q: expected [B, k] = {expected}, got {found}")
        parameters = self.decoder.in_own_type("q", q.parameters)
        if parameters.dtype.itemsize < 4:
            raise TypeError(
                f"decoder: a closed form needs weights of float32 or float64, got {parameters.dtype}; "
                f"leave the decoder in float32 and use autocast"
            )
        with without_autocast(parameters.device):
            return self.closed_form(q if parameters is q.parameters else type(q)(parameters))

    @abstractmethod
    def closed_form(self, q: Posterior) -> Tensor:
        """Return E_q log p(x|z) in nats, shape [B], for a posterior that fits."""

    @abstractmethod
    def is_exact(self, q: Posterior) -> bool:
        """Return whether ``expectation`` is exact under ``q``."""
