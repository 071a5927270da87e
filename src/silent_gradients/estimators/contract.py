"""The contract that every gradient estimator keeps, and the registry that knows them by name."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple, TypeVar, get_type_hints

import torch
from torch import Tensor

from silent_gradients.decoders.likelihood import ExactObjective, Objective
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
        posteriors: Names of the posterior families it serves; None is all.
    """

    name: ClassVar[str]
    unbiased: ClassVar[bool]
    exact: ClassVar[bool] = False
    posteriors: ClassVar[frozenset[str] | None] = None

    @property
    def evaluations(self) -> int:
        """Evaluations of the objective per step."""
        return 1

    @classmethod
    def serves(cls, family: type[Posterior]) -> bool:
        """Whether the estimator can differentiate through posteriors of this family."""
        return cls.posteriors is None or family.name in cls.posteriors

    def initial_state(self, device: torch.device) -> State:
        """State before the first step."""
        return {}

    @abstractmethod
    def __call__(
        self,
        q: Posterior,
        objective: Objective,
        *,
        control: ExactObjective | None = None,
        index: Tensor | None = None,
        generator: torch.Generator | None = None,
        state: State,
    ) -> Estimate:
        """Estimate E_q[objective] and its gradient.

        Args:
            q: Posterior of B images.
            objective: Function of z to average.
            control: A function with a known expectation that resembles the objective, for control variates.
            index: [B], number of each image in the training set, for per-image state.
            generator: Source of the latent samples.
            state: ``initial_state`` at first, then that of the last estimate.
        """


@dataclasses.dataclass(frozen=True)
class SampledEstimator(Estimator):
    """An estimator that averages over latent samples, each evaluated once.

    Attributes:
        samples: Samples per image and step.
    """

    samples: int = dataclasses.field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        """Raise ``EstimatorError`` where an option has an impossible value."""
        if not isinstance(self.samples, int) or self.samples < 1:
            raise EstimatorError(f"samples: expected a whole number of 1 or more, got {self.samples}")

    @property
    def evaluations(self) -> int:
        return self.samples


E = TypeVar("E", bound="Estimator")

REGISTRY: dict[str, type[Estimator]] = {}
"""Every estimator by name."""


def register(estimator: type[E]) -> type[E]:
    """Class decorator: add an estimator to the registry, and with it to the conformance tests."""
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
