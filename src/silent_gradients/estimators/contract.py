"""The contract that every gradient estimator keeps, and the registry that knows them by name."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple, TypeVar, get_type_hints

import torch
from torch import Tensor

from silent_gradients.decoders.likelihood import ExactObjective, Objective
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors import Posterior

State = dict[str, Tensor]
"""What an estimator carries from step to step (running averages): tensors only, saved in checkpoints."""


class EstimatorError(ValueError):
    """An estimator cannot be made or cannot serve what it is given."""


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
class Estimator(ABC):
    """An estimator of the gradient of E_q[objective]; its dataclass fields are its options.

    Class attributes:
        name: Name in the registry and in cell names.
        unbiased: Whether the expected gradient is the true one.
        exact: Whether it needs the objective's closed-form expectation and draws nothing.
        needs_control: Whether it needs a ``control``.
        mappable: Whether ``torch.vmap`` can map it over several runs: not if it differentiates by itself.
        posteriors: Names of the posterior families it serves; None is all that ``serves`` does not refuse.
        asks: What it asks of a family beside that, in words for an error; empty for nothing.
    """

    name: ClassVar[str]
    unbiased: ClassVar[bool]
    exact: ClassVar[bool] = False
    needs_control: ClassVar[bool] = False
    mappable: ClassVar[bool] = True
    posteriors: ClassVar[frozenset[str] | None] = None
    asks: ClassVar[str] = ""

    def evaluations(self, latent_dim: int) -> int:
        """Evaluations of the objective per image and step, for k latent variables."""
        return 1

    @classmethod
    def serves(cls, family: type[Posterior]) -> bool:
        """Whether the estimator can differentiate through posteriors of this family."""
        return cls.posteriors is None or family.name in cls.posteriors

    def initial_state(self, device: torch.device, images: int = 0) -> State:
        """State before the first step.

        Args:
            device: Where it lies.
            images: Number of images in the training set, for state per image.
        """
        return {}

    def entry(self, state: State, name: str) -> Tensor:
        """An entry of the state, of the shape [...] that ``initial_state`` gave it.

        Raises:
            EstimatorError: The state is of something else.
        """
        if name not in state:
            raise EstimatorError(
                f"state: estimator {self.name!r} needs {name!r}, got {sorted(state)}; the first is initial_state()"
            )
        return state[name]

    @classmethod
    def check_serves(cls, family: type[Posterior], argument: str = "q") -> None:
        """Raise ``EstimatorError`` where the estimator does not serve a family; ``argument`` is what gave it."""
        if not cls.serves(family):
            served = sorted(cls.posteriors) if cls.posteriors else f"those {cls.asks}"
            raise EstimatorError(
                f"{argument}: estimator {cls.name!r} does not serve {family.name} posteriors, but {served}"
            )

    def checked(self, control: ExactObjective | None) -> ExactObjective:
        """The control that the estimator needs.

        Raises:
            EstimatorError: It is missing, or its expectation is not known.
        """
        if not isinstance(control, ExactObjective):
            raise EstimatorError(
                f"control: estimator {self.name!r} needs one with a known expectation, as linear decoders give; "
                f"got {type(control).__name__}"
            )
        return control

    @abstractmethod
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
            control: A function with a known expectation that resembles the objective, for baselines and control
                variates. Its own parameters get no gradient.
            index: [B], number of each image in the training set, each at most once, for state per image; None for
                images from elsewhere.
            generator: Source of the latent samples.
            state: ``initial_state`` at first, then that of the last estimate.

        Raises:
            EstimatorError: The estimator cannot serve the posterior, the objective or the control.
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
        """Raise ``EstimatorError`` where an option has an impossible value."""
        if not isinstance(self.samples, int) or self.samples < self.least_samples:
            raise EstimatorError(
                f"samples: expected a whole number of {self.least_samples} or more, got {self.samples}"
            )

    def evaluations(self, latent_dim: int) -> int:
        return self.samples


E = TypeVar("E", bound="Estimator")

REGISTRY: dict[str, type[Estimator]] = {}
"""Every estimator by name."""


def register(estimator: type[E]) -> type[E]:
    """Class decorator: add an estimator to the registry, and with it to the conformance tests.

    Raises:
        EstimatorError: The registry has one of that name.
    """
    if estimator.name in REGISTRY:
        raise EstimatorError(f"estimator {estimator.name!r} is registered twice")
    REGISTRY[estimator.name] = estimator
    return estimator


def create(name: str, options: Mapping[str, float] | None = None) -> Estimator:
    """Make an estimator from its name and options.

    Raises:
        EstimatorError: Unknown name, unknown option, or an impossible value.
    """
    if name not in REGISTRY:
        raise EstimatorError(f"estimator: expected one of {sorted(REGISTRY)}, got {name!r}")
    factory: Callable[..., Estimator] = REGISTRY[name]
    options = options or {}
    known = {field.name for field in dataclasses.fields(REGISTRY[name])}
    if unknown := sorted(set(options) - known):
        raise EstimatorError(f"estimator {name!r}: unknown options {unknown}; it has {sorted(known)}")
    kinds = get_type_hints(REGISTRY[name])
    # Settings hold every option as a number: 2.0 samples are 2.
    return factory(
        **{
            option: int(value) if kinds[option] is int and float(value).is_integer() else value
            for option, value in options.items()
        }
    )
