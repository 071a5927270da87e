"""The contract and the registry of gradient estimators."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple, TypeVar, get_type_hints

import torch
from torch import Tensor

from silent_gradients import checks
from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.contract import Posterior

State = dict[str, Tensor]
"""What an estimator carries from step to step (running averages): tensors only, saved in checkpoints."""


class EstimatorError(ValueError):
    """An estimator cannot be made, or cannot work with its arguments."""


class Estimate(NamedTuple):
    """One estimate of E_q[objective] and of its gradient.

    Attributes:
        value: [B], estimate of the expectation in nats, without a gradient.
        surrogate: [B]; its gradient with respect to the posterior's and the objective's parameters is the estimate of
            the expectation's gradient. Its value means nothing.
        state: The estimator's state after this step.
    """

    value: Tensor
    surrogate: Tensor
    state: State


@dataclasses.dataclass(frozen=True)
class Given:
    """The keyword arguments of ``Estimator.__call__``, the index [B] among them, after their check.

    The control is never None if the estimator ``needs_control``.
    """

    state: State
    generator: NoiseSource | None
    index: Tensor | None
    control: ExactObjective | None


_ARGUMENTS: dict[str, checks.Check] = {
    "latent_dim": lambda _, latent_dim: checks.whole("latent_dim", latent_dim, error=EstimatorError),
    "images": lambda _, images: checks.whole("images", images, 0, EstimatorError),
}
"""Checks of the arguments of every estimator's methods; ``__call__`` checks its own."""


@dataclasses.dataclass(frozen=True)
class Estimator(checks.Guarded, ABC, arguments=_ARGUMENTS):
    """An estimator of the gradient of E_q[objective]; its dataclass fields are its options.

    A subclass writes ``estimate``; calling an estimator checks the arguments first.

    Class attributes:
        name: Name in the registry and in cell names.
        unbiased: Whether the expected gradient is the true one, if an image's value depends on that image alone: with
            BatchNorm in the decoder, in training mode, score-function gradients are biased.
        exact: Whether it needs the objective's closed-form expectation and draws nothing.
        needs_control: Whether it needs a ``control``.
        mappable: Whether ``torch.vmap`` can map it over several runs; False if it calls autograd itself.
        posteriors: Names of the supported posterior families; None for all that ``supports`` does not exclude.
        requirement: What ``supports`` requires of a family, in words for an error; empty for nothing.
    """

    name: ClassVar[str]
    unbiased: ClassVar[bool]
    exact: ClassVar[bool] = False
    needs_control: ClassVar[bool] = False
    mappable: ClassVar[bool] = True
    posteriors: ClassVar[frozenset[str] | None] = None
    requirement: ClassVar[str] = ""

    def evaluations(self, latent_dim: int) -> int:
        """Return the number of evaluations of the objective per image and step, for k latent variables.

        Raises:
            EstimatorError: k is not a whole number of 1 or more.
        """
        return 1

    @classmethod
    def supports(cls, family: type[Posterior]) -> bool:
        """Return whether the estimator can differentiate through posteriors of this family."""
        return cls.posteriors is None or family.name in cls.posteriors

    @classmethod
    def check_supports(cls, family: type[Posterior], argument: str = "q") -> None:
        """Raise ``EstimatorError``, naming the ``argument``, if the estimator does not support a posterior family."""
        if not cls.supports(family):
            supported = sorted(cls.posteriors) if cls.posteriors else f"those {cls.requirement}"
            raise EstimatorError(
                f"{argument}: estimator {cls.name!r} does not support {family.name} posteriors, but {supported}"
            )

    def initial_state(self, device: torch.device, images: int = 0) -> State:
        """Return the state before the first step on a device, for a training set of so many images if it is per image.

        Raises:
            EstimatorError: ``images`` is not a whole number of 0 or more.
        """
        return {}

    def entry(self, state: State, name: str) -> Tensor:
        """Return an entry of the state, of the shape [...] that ``initial_state`` gave it.

        Raises:
            EstimatorError: The state lacks the entry.
        """
        if name not in state:
            raise EstimatorError(
                f"state: estimator {self.name!r} needs {name!r}, got {sorted(state)}; start with initial_state()"
            )
        return state[name]

    def __call__(
        self,
        q: Posterior,
        objective: Objective,
        *,
        control: ExactObjective | None = None,
        index: Tensor | None = None,
        generator: NoiseSource | None = None,
        state: State,
    ) -> Estimate:
        """Estimate E_q[objective] and its gradient.

        Args:
            q: Posterior of B images.
            objective: Function of z to average.
            control: Function with a known expectation that resembles the objective, for baselines and control
                variates. Its own parameters get no gradient.
            index: [B], number of each image in the training set, each at most once, for state per image; None for
                images from elsewhere.
            generator: Source of the latent samples.
            state: ``initial_state`` at first, then the state of the last estimate.

        Raises:
            EstimatorError: The estimator does not support the posterior, the objective, the control or the state.
        """
        for argument, given, kind in (("q", q, Posterior), ("objective", objective, Objective), ("state", state, dict)):
            if not isinstance(given, kind):
                raise EstimatorError(f"{argument}: expected an instance of {kind.__name__}, got {given!r}")
        self.check_supports(type(q))
        if self.needs_control and not isinstance(control, ExactObjective):
            raise EstimatorError(
                f"control: estimator {self.name!r} needs one with a known expectation, as linear decoders have; "
                f"got {type(control).__name__}"
            )
        value, surrogate, state = self.estimate(q, objective, Given(state, generator, index, control))
        batch = q.parameters.shape[:1]
        if value.shape != batch or surrogate.shape != batch:
            raise EstimatorError(
                f"objective: expected values of shape [S, {len(q.parameters)}] at samples, got {list(value.shape)} "
                f"in their mean"
            )
        return Estimate(value.detach(), surrogate, state)

    @abstractmethod
    def estimate(self, q: Posterior, objective: Objective, given: Given) -> Estimate:
        """Return the estimate for checked arguments; its ``value`` [B] may carry a gradient, which is dropped.

        Raises:
            EstimatorError: The estimator does not support the objective, the control or the state.
        """


@dataclasses.dataclass(frozen=True)
class SampledEstimator(Estimator):
    """An estimator that averages over latent samples, each evaluated once.

    Class attributes:
        least_samples: Fewest samples it works with.

    Attributes:
        samples: Samples per image and step.
    """

    samples: int = dataclasses.field(default=1, kw_only=True)

    least_samples: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Raise ``EstimatorError`` if an option has an impossible value."""
        checks.whole("samples", self.samples, self.least_samples, EstimatorError)

    def evaluations(self, latent_dim: int) -> int:
        return self.samples


E = TypeVar("E", bound="Estimator")

REGISTRY: dict[str, type[Estimator]] = {}
"""Every estimator by name."""


def register(estimator: type[E]) -> type[E]:
    """Add an estimator to the registry, and with it to the conformance tests; a class decorator.

    A class of the same name, module and place takes the place of the one before, as in a notebook's cell run again.

    Raises:
        EstimatorError: It is no estimator, or the registry has another one of that name.
    """
    if not isinstance(estimator, type) or not issubclass(estimator, Estimator):
        raise EstimatorError(f"estimator: expected a subclass of Estimator, got {estimator!r}")
    known = REGISTRY.get(estimator.name, estimator)
    if (known.__module__, known.__qualname__) != (estimator.__module__, estimator.__qualname__):
        raise EstimatorError(
            f"name: {estimator.name!r} is that of {known.__module__}.{known.__qualname__}; choose another"
        )
    REGISTRY[estimator.name] = estimator
    return estimator


def create(name: str, options: Mapping[str, float] | None = None) -> Estimator:
    """Make an estimator from its name and options.

    Raises:
        EstimatorError: Unknown name, unknown option, or an impossible value.
        TypeError: ``options`` is no mapping.
    """
    if name not in REGISTRY:
        raise EstimatorError(f"estimator: expected one of {sorted(REGISTRY)}, got {name!r}")
    factory: Callable[..., Estimator] = REGISTRY[name]
    options = {} if options is None else options
    checks.instance("options", options, Mapping)
    known = {field.name for field in dataclasses.fields(REGISTRY[name])}
    if unknown := sorted(set(options) - known):
        raise EstimatorError(f"estimator {name!r}: unknown options {unknown}; it has {sorted(known)}")
    types = get_type_hints(REGISTRY[name])
    # Settings hold every option as a number: 2.0 samples are 2.
    return factory(
        **{
            option: int(value) if types[option] is int and isinstance(value, float) and value.is_integer() else value
            for option, value in options.items()
        }
    )
