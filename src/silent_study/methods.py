"""The compared methods: posterior, estimator, guide, label.

The methods are derived from the estimators' declarations, so every estimator of the registry is a method. The paper's
estimators are declared here as well: planning and reporting them does not load torch, which takes seconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

from silent_study.paper import PUBLISHED
from silent_study.settings import EXPERIMENTS, Experiment, GuideRole, PosteriorFamily

if TYPE_CHECKING:
    from silent_gradients.estimators import Estimator

GUIDANCE = ("without SG", "with SG", "with sampled guide")
"""What trains the encoder besides the estimator: nothing, a guide's silent gradient, a guide's sampled gradient."""

# In the order of the paper's tables. An estimator that is missing here is printed by its name in the settings.
_LABELS = {
    "none": "None",
    "reparameterization": "Reparameterization",
    "reparameterization-silent-control": "Reparameterization, silent control",
    "reparameterization-tangent-control": "Reparameterization, tangent control",
    "gumbel-softmax": "Gumbel-Softmax",
    "straight-through": "Straight-through",
    "straight-through-gumbel-softmax": "Straight-through Gumbel-Softmax",
    "arm": "ARM",
    "disarm": "DisARM",
    "local-expectation": "Local expectations",
    "reinforce": "REINFORCE",
    "reinforce-no-baseline": "REINFORCE, no baseline",
    "reinforce-per-datum": "REINFORCE, baseline per image",
    "reinforce-silent-baseline": "REINFORCE, silent baseline",
    "reinforce-silent-control": "REINFORCE, silent control",
    "rloo": "RLOO",
    "rloo-silent-control": "RLOO, silent control",
    "rloo-tangent-control": "RLOO, tangent control",
}
_ORDER = tuple(_LABELS)
_LABEL_ENDS = dict(zip(GUIDANCE, ("", " + SG", " + sampled guide"), strict=True))
_IN_PAPER = {tuple(cell.split("/")[1:]) for cell in PUBLISHED}
_GUIDE_AXES: dict[str, tuple[str, ...]] = {
    "none": (),
    "control": ("mean_rate", "precision_rate"),
    "only": ("mean_rate", "precision_rate", "cutoff_epoch"),
    "annealed": ("mean_rate", "precision_rate", "annealing_rate", "cutoff_epoch"),
}


@dataclass(frozen=True)
class Method:
    """One method of an experiment: a row of the report's tables."""

    experiment: Experiment
    name: str  # in cells, e.g. reinforce+silent
    posterior: PosteriorFamily
    estimator: str  # of the reported decoder's gradient; ``none`` if the guide alone trains the encoder
    guide: Literal["none"] | GuideRole = "none"
    sampled: bool = False  # the guide's gradient is estimated like the reported decoder's instead of computed exactly
    baseline: str | None = None  # the method from which an annealed one takes its learning rate
    options: Mapping[str, float] = field(default_factory=dict, hash=False)  # of the estimator, with their defaults

    @property
    def axes(self) -> tuple[str, ...]:
        """Grid axes of the method; an annealed one takes its learning rate from its baseline."""
        own = EXPERIMENTS[self.experiment].axes if self.baseline is None else ()
        return own + _GUIDE_AXES[self.guide]

    @property
    def sampled_estimator(self) -> str:
        """Estimator of the sampled gradient; ``none`` if the silent gradient alone trains the encoder."""
        return "none" if self.estimator == "silent" else self.estimator

    @property
    def guidance(self) -> str:
        """The entry of ``GUIDANCE`` that describes the method."""
        guided = self.guide in ("only", "annealed") or self.sampled_estimator == "none"
        return GUIDANCE[2 if self.sampled else 1 if guided else 0]

    @property
    def silent(self) -> bool:
        """True if a silent gradient trains the encoder, at least at first."""
        return self.guidance == "with SG"

    @property
    def beyond(self) -> bool:
        """True if the paper has the experiment but not the method."""
        return EXPERIMENTS[self.experiment].in_paper and (self.experiment, self.name) not in _IN_PAPER

    @property
    def space(self) -> str:
        """The paper's word for the posterior."""
        return "Continuous" if self.posterior == "gaussian" else "Discrete"

    @property
    def estimator_label(self) -> str:
        """The estimator as tables print it."""
        return _LABELS.get(self.sampled_estimator, self.sampled_estimator)

    @property
    def label(self) -> str:
        """The method as tables print it, e.g. ``REINFORCE + SG`` or ``Silent (Gaussian)``."""
        if self.sampled_estimator == "none":
            return f"Silent ({self.posterior.capitalize()})"
        # Of an estimator with both posteriors, one method has the posterior in its name.
        named = self.name.startswith(f"{self.estimator}-{self.posterior}")
        posterior = f" ({self.posterior.capitalize()})" if named else ""
        return f"{self.estimator_label}{posterior}{_LABEL_ENDS[self.guidance]}"

    def label_with(self, estimator: str) -> str:
        """Return the label, with the estimator that measured a gradient variance if it is another than the method's."""
        own = not estimator or self.sampled_estimator in (estimator, "none")
        return self.label if own else f"{self.label}, estimated with {estimator}"

    @property
    def rank(self) -> tuple[bool, bool, int, str, int]:
        """Sort key: the order of the paper's tables, other methods last."""
        estimator = self.sampled_estimator
        known = _ORDER.index(estimator) if estimator in _ORDER else len(_ORDER)
        return (self.beyond, self.posterior != "gaussian", known, estimator, GUIDANCE.index(self.guidance))


@dataclass(frozen=True)
class EstimatorTraits:
    """The part of an estimator's declaration that decides which methods it has."""

    name: str  # in the registry
    posteriors: tuple[PosteriorFamily, ...]  # that it supports
    exact: bool = False  # it needs a decoder with a known expectation
    needs_control: bool = False  # for a decoder without a known expectation the control is the guide
    options: Mapping[str, float] = field(default_factory=dict)  # with their defaults

    @classmethod
    def of(cls, estimator: type[Estimator]) -> EstimatorTraits:
        """Read the declaration of an estimator in the registry."""
        from silent_gradients.posteriors import FAMILIES

        return cls(
            estimator.name,
            tuple(name for name in get_args(PosteriorFamily) if estimator.supports(FAMILIES[name])),
            estimator.exact,
            estimator.needs_control,
            dataclasses.asdict(estimator()),
        )

    def methods(self, experiment: Experiment) -> Iterator[Method]:
        """Yield the estimator's methods in an experiment."""
        # Where there is a choice, sampled gradients are compared on bits, which most of them are for.
        usual = None if self.exact else "bernoulli" if "bernoulli" in self.posteriors else "gaussian"
        for posterior in self.posteriors:
            name = self.name if posterior == usual else f"{self.name}-{posterior}"
            method = Method(experiment, name, posterior, self.name, options=self.options)
            yield from [method] if EXPERIMENTS[experiment].exact else self._guided(method)

    def _guided(self, method: Method) -> Iterator[Method]:
        """Yield the variants of a method beside a decoder without a known expectation."""
        if self.name == "silent":
            yield replace(method, estimator="none", guide="only", options={})
        elif not self.exact:
            yield replace(method, guide="control" if self.needs_control else "none")
            annealed = replace(method, guide="annealed", baseline=method.name)
            yield replace(annealed, name=f"{method.name}+silent")
            if not self.needs_control:  # a guide has no control for an estimator of its own gradient
                yield replace(annealed, name=f"{method.name}+sampled", sampled=True)


PAPER_ESTIMATORS = (
    EstimatorTraits("silent", ("gaussian", "bernoulli"), exact=True),
    EstimatorTraits("reparameterization", ("gaussian",), options={"samples": 1}),
    EstimatorTraits("gumbel-softmax", ("bernoulli",), options={"samples": 1, "temperature": 1.0}),
    EstimatorTraits("reinforce", ("gaussian", "bernoulli"), options={"samples": 1, "decay": 0.99}),
)
"""The paper's estimators, known without torch."""

PAPER_OPTIONS: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "samples": ("a whole number of 1 or more", lambda value: value >= 1 and value.is_integer()),
    "temperature": ("a positive number", lambda value: 0 < value < math.inf),
    "decay": ("a number in [0, 1)", lambda value: 0 <= value < 1),
}
"""The values of their options, in words and as a condition: those that the estimators themselves accept."""


class Methods(Mapping[str, Method]):
    """The methods of an experiment by name; looks a name up in the registry if the paper's estimators lack it."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.papers = self._made_by(PAPER_ESTIMATORS)

    def _made_by(self, estimators: Iterable[EstimatorTraits]) -> dict[str, Method]:
        return {method.name: method for traits in estimators for method in traits.methods(self.experiment)}

    def _all(self) -> dict[str, Method]:
        from silent_gradients.estimators import REGISTRY

        return self._made_by(EstimatorTraits.of(REGISTRY[name]) for name in sorted(REGISTRY))

    def __getitem__(self, name: str) -> Method:
        return self.papers[name] if name in self.papers else self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


METHODS: Mapping[str, Methods] = {experiment: Methods(experiment) for experiment in get_args(Experiment)}
"""The methods of each experiment."""
