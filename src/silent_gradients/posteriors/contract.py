"""The contract of families: moments, cumulants, KL divergence, samples.

A posterior is a batch of B factorised distributions over k latent variables, made from the encoder's output. Exact
decoders need the cumulants of linear functions of z. These are sums over independent coordinates, so everything here is
linear in k (paper, Section 3.1, Proposition 1 and Theorem 1). A family whose coordinates are independent in groups only
(``Categorical``) overrides the cumulants of linear functions.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from silent_gradients import checks
from silent_gradients.checks import NonFiniteError, ShapeError
from silent_gradients.latent_noise import NoiseSource


def sigmoid(x: Tensor) -> Tensor:
    """Return the logistic function of x [...], whose gradient keeps its digits on either side.

    Automatic differentiation of ``torch.sigmoid`` multiplies by 1 - y, which has none left where y rounds to 1.
    """
    return torch.where(x > 0, 1 - (-x).sigmoid(), x.sigmoid())


class JointCumulants(NamedTuple):
    """Joint cumulants of m = A z and s = B z, all of shape [B, D]; ``k12`` to ``k22`` are None where they vanish.

    Attributes:
        mean_m: E[m].
        mean_s: E[s].
        variance_m: Var[m].
        variance_s: Var[s].
        covariance: Cov[m, s].
        k12: E of (m - E m)(s - E s)^2.
        k21: E of (m - E m)^2 (s - E s).
        k22: Fourth joint cumulant of (m, m, s, s).
    """

    mean_m: Tensor
    mean_s: Tensor
    variance_m: Tensor
    variance_s: Tensor
    covariance: Tensor
    k12: Tensor | None = None
    k21: Tensor | None = None
    k22: Tensor | None = None


def joint_cumulants(
    weight_m: Tensor,
    weight_s: Tensor,
    mean: Tensor,
    variance: Tensor,
    third: Tensor | None = None,
    fourth: Tensor | None = None,
) -> JointCumulants:
    """Return the joint cumulants of m = A z and s = B z for independent z_i; paper, Theorem 1.

    A is ``weight_m`` and B ``weight_s``, both [D, k]; the cumulants of the z_i are [B, k], the higher ones None where
    they vanish.
    """
    squared_m, squared_s, product = weight_m.square(), weight_s.square(), weight_m * weight_s
    means = F.linear(mean, weight_m), F.linear(mean, weight_s)
    variances = F.linear(variance, squared_m), F.linear(variance, squared_s), F.linear(variance, product)
    if third is None or fourth is None:
        return JointCumulants(*means, *variances)
    k12, k21 = F.linear(third, weight_m * squared_s), F.linear(third, squared_m * weight_s)
    return JointCumulants(*means, *variances, k12, k21, F.linear(fourth, squared_m * squared_s))


class TiltedMoments(NamedTuple):
    """Moments of m = A z under q(z|x) tilted by e^t, t = T z; all of shape [B, D].

    For every function f, E[e^t f(m)] is E[e^t] times the mean of f(m) under the tilted distribution q e^t / E[e^t].

    Attributes:
        log_normalizer: log E[e^t], the cumulant generating function of z at each row of T.
        mean: Mean of m under the tilted distribution.
        variance: Variance of m under the tilted distribution.
    """

    log_normalizer: Tensor
    mean: Tensor
    variance: Tensor


def _weights(argument: str, rows: str) -> checks.Check:
    """Return the check of a matrix of weights [``rows``, k] in the parameters' type."""

    def check(q: Posterior, weight: object) -> Tensor:
        own = q.parameters
        found = checks.shaped(argument, weight, rows, q.latent_dim, device=own.device)
        if found.dtype != own.dtype:
            raise TypeError(f"{argument}: expected {own.dtype}, the parameters' type, got {found.dtype}; convert it")
        return found

    return check


_ARGUMENTS: dict[str, checks.Check] = {
    "samples": lambda _, samples: checks.whole("samples", samples),
    "z": lambda q, z: checks.shaped("z", z, "S", len(q.parameters), q.latent_dim, device=q.parameters.device),
    "images": lambda _, images: checks.whole("images", images, 0),
    "latent_dim": lambda _, latent_dim: checks.whole("latent_dim", latent_dim),
    "like": lambda _, like: checks.floats("like", like),
    **{name: _weights(name, "D") for name in ("weight", "weight_m", "weight_s", "exponent")},
    "frequency": _weights("frequency", "N"),
}
"""Checks of the arguments of every family's methods."""


class Posterior(checks.Guarded, ABC, arguments=_ARGUMENTS):
    """A batch [B] of factorised distributions over [k], made from the encoder's output.

    That is ``parameters`` [B, p k], p numbers per latent variable.

    Raises:
        ShapeError: ``parameters`` is not a matrix, or its width is no multiple of ``parameters_per_latent``.
        TypeError: ``parameters`` is no tensor of floating-point numbers.
    """

    name: ClassVar[str]
    parameters_per_latent: ClassVar[int]
    support: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    """Least and largest value of a latent variable."""
    is_gaussian: ClassVar[bool] = False
    """Whether linear functions of z are exactly normal, so that all cumulants beyond the second vanish."""
    has_independent_coordinates: ClassVar[bool] = True
    """Whether the latent variables are independent one by one, so that joint cumulants are sums over them."""
    has_fixed_support: ClassVar[bool] = True
    """Whether the same z are possible for all parameters. Otherwise the gradient of an expectation has a part at the
    border of the support, which score-function gradients miss."""

    mean: Tensor
    """E[z], shape [B, k]; every family sets it and ``variance`` when it is made."""
    variance: Tensor
    """Var[z], shape [B, k]."""

    def __init__(self, parameters: Tensor) -> None:
        checks.floats("parameters", parameters)
        if parameters.ndim != 2 or parameters.shape[1] % self.parameters_per_latent:
            raise ShapeError(
                f"parameters: expected shape [B, {self.parameters_per_latent} k] for a {self.name} posterior, "
                f"got {list(parameters.shape)}"
            )
        self.parameters = parameters
        self.latent_dim = parameters.shape[1] // self.parameters_per_latent

    def check_finite(self) -> None:
        """Raise ``NonFiniteError`` if parameters are NaN or infinite, with their number.

        The check waits for the device, so a training step leaves it out.
        """
        wrong = int((~self.parameters.isfinite()).sum())
        if wrong:
            raise NonFiniteError(
                f"parameters: expected finite numbers, got {wrong} of {self.parameters.numel()} NaN or infinite"
            )

    @property
    @abstractmethod
    def third_cumulant(self) -> Tensor:
        """Return the third central moment of each z_i, shape [B, k]."""

    @property
    @abstractmethod
    def fourth_cumulant(self) -> Tensor:
        """Return the fourth central moment less three times the squared variance, of each z_i, shape [B, k]."""

    @abstractmethod
    def kl_divergence(self) -> Tensor:
        """Return KL(q || prior) in nats, summed over the latent variables, shape [B]."""

    def sample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        """Return genuine (hard) samples without a gradient, shape [S, B, k]; by default from ``rsample``."""
        with torch.no_grad():
            return self.rsample(samples, generator)

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return log q(z|x) in nats of z [S, B, k], summed over the latent variables, shape [S, B].

        Raises:
            ShapeError: z has another shape.
        """

    @classmethod
    def parameters_from(cls, output: Tensor) -> Tensor:
        """Return the parameters for an encoder's output, both [B, p k]: the output, unless a family trains badly so."""
        return output

    @classmethod
    def prior(cls, images: int, latent_dim: int, like: Tensor) -> Self:
        """Return the prior as a posterior of so many images, in type and on the device of ``like`` [...]."""
        # Parameters of zero make the prior, unless a family overrides this.
        return cls(like.new_zeros(images, latent_dim * cls.parameters_per_latent))

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z) in nats of z [S, B, k] under the prior, summed over the latent variables, shape [S, B]."""
        return self.prior(len(self.parameters), self.latent_dim, self.parameters).log_prob(z)

    def rsample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        """Return samples [S, B, k] that are differentiable functions of the parameters, if the family has them.

        Raises:
            NotImplementedError: The family has no reparameterization.
        """
        raise NotImplementedError(f"a {self.name} posterior has no reparameterized samples")

    @classmethod
    def has_rsample(cls) -> bool:
        """Return whether the family has ``rsample``."""
        return cls.rsample is not Posterior.rsample

    def linear_variance(self, weight: Tensor) -> Tensor:
        """Return the variance of each row of W z for ``weight`` W [D, k], shape [B, D]."""
        return F.linear(self.variance, weight.square())

    def total_variance(self, weight: Tensor) -> Tensor:
        """Return the sum of ``linear_variance`` over its rows, [B]: sum_i Var(z_i) |w_i|^2, no matrix product."""
        # Not `square`: its backward pass reads the weights once more.
        return self.variance @ (weight * weight).sum(0)

    def higher_cumulants(self, weight: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return third and fourth cumulant of W z for ``weight`` W [D, k], each [B, D]; None where they vanish."""
        if self.is_gaussian:
            return None, None
        return F.linear(self.third_cumulant, weight**3), F.linear(self.fourth_cumulant, weight**4)

    def joint_cumulants(self, weight_m: Tensor, weight_s: Tensor) -> JointCumulants:
        """Return the joint cumulants of m = A z and s = B z for A and B [D, k]; paper, Theorem 1."""
        higher = () if self.is_gaussian else (self.third_cumulant, self.fourth_cumulant)
        return joint_cumulants(weight_m, weight_s, self.mean, self.variance, *higher)

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """Return moments of m = A z under q tilted by e^t, t = T z, for A and T [D, k].

        Raises:
            NotImplementedError: The family has no moment generating function.
        """
        raise NotImplementedError(f"a {self.name} posterior has no tilted moments")

    def log_characteristic(self, frequency: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm of the modulus and the argument of E e^(i t), each [N, B], for t = T z and T [N, k].

        Raises:
            NotImplementedError: The family does not know its characteristic function.
        """
        raise NotImplementedError(f"a {self.name} posterior has no characteristic function")

    @classmethod
    def has_characteristic(cls) -> bool:
        """Return whether the family has ``log_characteristic``."""
        return cls.log_characteristic is not Posterior.log_characteristic

    @classmethod
    def has_tilted_moments(cls) -> bool:
        """Return whether the family has ``tilted_moments``."""
        return cls.tilted_moments is not Posterior.tilted_moments


def log_modulus(real: Tensor, imaginary: Tensor) -> Tensor:
    """Return log |real + i imaginary| of tensors [...], finite where it is 0."""
    return 0.5 * (real.square() + imaginary.square()).clamp_min(torch.finfo(real.dtype).tiny).log()


def check_family(family: object) -> None:
    """Raise ``TypeError`` if something is no posterior family."""
    if not isinstance(family, type) or not issubclass(family, Posterior):
        raise TypeError(
            f"family: expected a posterior class such as Bernoulli, got {family!r}; FAMILIES has them by name"
        )


class WithOption(Posterior):
    """A family with an option: a whole number of ``least`` or more in the class attribute that ``option`` names."""

    option: ClassVar[str]
    least: ClassVar[int]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        checks.whole(cls.option, getattr(cls, cls.option, cls.least), cls.least)

    @classmethod
    @functools.lru_cache(maxsize=None, typed=True)  # True and 1.0 are no whole numbers, and equal to one
    def of(cls, number: int) -> type[Self]:
        """Return the family with another value of the option, the same class for the same number.

        Raises:
            ValueError: The number is not whole, or too small.
        """
        return type(f"{cls.__name__}{number}", (cls,), {cls.option: number, "__module__": cls.__module__})

    @classmethod
    def named(cls, name: str) -> type[Self]:
        """Return a class of ``of`` by name, or raise ``AttributeError``, as a module's ``__getattr__`` for pickle."""
        number = name.removeprefix(cls.__name__)
        if number == name or not number.isdecimal():
            raise AttributeError(f"module {cls.__module__!r} has no attribute {name!r}")
        return cls.of(int(number))
