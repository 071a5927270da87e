"""The methods that are compared: rows of the report's tables, each a posterior and an estimator.

They are derived from what is known of the estimators, so that one that joins the registry is a method. The paper's are
known without the registry, which loads torch: planning and reporting its study take a fraction of a second instead of
seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

from silent_study.settings import Experiment, GuideRole, PosteriorFamily

if TYPE_CHECKING:
    from silent_gradients.estimators import Estimator


@dataclass(frozen=True)
class Method:
    """One method of an experiment.

    Attributes:
        name: As in cell names.
        posterior: Posterior family.
        estimator: Estimator of the reported decoder's gradient; ``none`` where the guide alone trains the encoder.
        guide: What the guide is for (``SilentSettings``); ``none`` where there is none.
        sampled: Whether the guide's gradient is estimated as the reported decoder's, instead of exactly.
        baseline: The method whose learning rate an annealed one takes over.
        options: The estimator's options with their defaults; experiments may set them otherwise.
    """

    name: str
    posterior: PosteriorFamily
    estimator: str
    guide: Literal["none"] | GuideRole = "none"
    sampled: bool = False
    baseline: str | None = None
    options: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Kind:
    """What methods are derived from: the part of an estimator's declaration that decides which there are.

    Attributes:
        name: Name in the registry.
        posteriors: Families that it serves.
        exact: Whether it needs a decoder with a known expectation.
        needs_control: Whether it needs a control, which is the guide of a decoder without a known expectation.
        options: Its options with their defaults.
    """

    name: str
    posteriors: tuple[PosteriorFamily, ...]
    exact: bool = False
    needs_control: bool = False
    options: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, estimator: type[Estimator]) -> Kind:
        """The declaration of an estimator in the registry."""
        from silent_gradients.posteriors import FAMILIES

        return cls(
            estimator.name,
            tuple(name for name in get_args(PosteriorFamily) if estimator.serves(FAMILIES[name])),
            estimator.exact,
            estimator.needs_control,
            dataclasses.asdict(estimator()),
        )


_PAPER = (
    Kind("silent", ("gaussian", "bernoulli"), exact=True),
    Kind("reparameterization", ("gaussian",), options={"samples": 1}),
    Kind("gumbel-softmax", ("bernoulli",), options={"samples": 1, "temperature": 1.0}),
    Kind("reinforce", ("gaussian", "bernoulli"), options={"samples": 1, "decay": 0.99}),
)


def _alone(kind: Kind) -> Iterator[Method]:
    """The methods of an estimator by itself, one for each posterior."""
    # Where there is a choice, sampled gradients are compared on bits, which most of them are for.
    usual = None if kind.exact else "bernoulli" if "bernoulli" in kind.posteriors else "gaussian"
    for posterior in kind.posteriors:
        name = kind.name if posterior == usual else f"{kind.name}-{posterior}"
        yield Method(name, posterior, kind.name, options=kind.options)


def _guided(kind: Kind) -> Iterator[Method]:
    """The methods of an estimator beside a decoder without a known expectation."""
    for method in _alone(kind):
        if kind.name == "silent":
            yield Method(method.name, method.posterior, "none", guide="only")
        elif not kind.exact:
            yield replace(method, guide="control" if kind.needs_control else "none")
            annealed = replace(method, guide="annealed", baseline=method.name)
            yield replace(annealed, name=f"{method.name}+silent")
            if not kind.needs_control:  # a guide has no control for an estimator of its own gradient
                yield replace(annealed, name=f"{method.name}+sampled", sampled=True)


def derived(experiment: Experiment, kinds: Iterable[Kind]) -> dict[str, Method]:
    """The methods of an experiment that some estimators make, by name."""
    derive = _guided if experiment == "learnable" else _alone
    return {method.name: method for kind in kinds for method in derive(kind)}


class Methods(Mapping[str, Method]):
    """The methods of an experiment by name; the registry is asked where a method is not one of the paper's estimators.

    Args:
        experiment: The experiment.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._known = derived(experiment, _PAPER)

    def _all(self) -> dict[str, Method]:
        from silent_gradients.estimators import REGISTRY

        return derived(self.experiment, map(Kind.of, REGISTRY.values()))

    def __getitem__(self, name: str) -> Method:
        return self._known[name] if name in self._known else self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


METHODS: dict[Experiment, Methods] = {experiment: Methods(experiment) for experiment in get_args(Experiment)}
"""The methods of each experiment."""


def axes(experiment: Experiment, method: Method) -> tuple[str, ...]:
    """The grid's axes that concern a method; an annealed one takes its learning rate from its baseline."""
    if experiment == "fixed":
        return ("learning_rate", "mean_rate", "variance")
    if experiment == "log-linear":
        return ("learning_rate", "mean_rate", "precision_rate")
    return {
        "none": ("learning_rate",),
        "control": ("learning_rate", "mean_rate", "precision_rate"),
        "only": ("learning_rate", "mean_rate", "precision_rate", "cutoff_epoch"),
        "annealed": ("mean_rate", "precision_rate", "annealing_rate", "cutoff_epoch"),
    }[method.guide]
