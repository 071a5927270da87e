"""How a method reads in a table: the paper's words for its posterior, its estimator, and whether it is silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from silent_study.methods import METHODS
from silent_study.paper import PUBLISHED

# An estimator that is not named here reads as it is written in the settings.
_ESTIMATORS = {
    "none": "None",
    "reparameterization": "Reparameterization",
    "reparameterization-silent-control": "Reparameterization, silent control",
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
}
_ORDER = tuple(_ESTIMATORS)
_PAPERS = {tuple(cell.split("/")[1:]) for cell in PUBLISHED}

EXPERIMENTS = {
    "fixed": "fixed variance",
    "learnable": "learnable variance",
    "log-linear": "log-linear precision",
}
"""The experiments in the order of the report, as readers know them."""

GUIDANCE = ("without SG", "with SG", "with sampled guide")
"""What steers the encoder besides the estimator: nothing, a guide's silent gradient, or its sampled one."""


@dataclass(frozen=True)
class MethodName:
    """A row of the tables.

    Attributes:
        name: Name in cells, e.g. ``reinforce+silent``.
        posterior: ``gaussian`` (the paper's "Continuous") or ``bernoulli`` ("Discrete").
        estimator: Estimator of the sampled gradient; ``none`` where the silent gradient stands alone.
        guidance: One of ``GUIDANCE``.
        beyond: Whether it is none of the paper's methods, in an experiment of the paper.
    """

    name: str
    posterior: str
    estimator: str
    guidance: str
    beyond: bool

    @classmethod
    def of(cls, experiment: str, name: str) -> MethodName:
        """The row of a method.

        Raises:
            KeyError: The experiment has no such method.
        """
        known: Any = METHODS
        method = known[experiment][name]
        alone = method.estimator in ("none", "silent")
        guided = method.guide in ("only", "annealed")
        return cls(
            name,
            method.posterior,
            "none" if alone else method.estimator,
            GUIDANCE[2 if method.sampled else 1 if alone or guided else 0],
            experiment != "log-linear" and (experiment, name) not in _PAPERS,
        )

    @property
    def silent(self) -> bool:
        """Whether a silent gradient trains the encoder, at least at first."""
        return self.guidance == "with SG"

    @property
    def space(self) -> str:
        """The paper's word for the posterior."""
        return "Continuous" if self.posterior == "gaussian" else "Discrete"

    @property
    def estimator_label(self) -> str:
        """The estimator as tables print it."""
        return _ESTIMATORS.get(self.estimator, self.estimator)

    @property
    def label(self) -> str:
        """The method in words, e.g. ``REINFORCE + SG`` or ``Silent (Gaussian)``."""
        if self.estimator == "none":
            return f"Silent ({self.posterior.capitalize()})"
        # Where an estimator serves both posteriors, the name of one of the two methods says which.
        told_apart = self.name.startswith(f"{self.estimator}-{self.posterior}")
        label = f"{self.estimator_label} ({self.posterior.capitalize()})" if told_apart else self.estimator_label
        return label + {"without SG": "", "with SG": " + SG", "with sampled guide": " + sampled guide"}[self.guidance]

    def label_with(self, estimator: str) -> str:
        """The label, with the estimator that measured a gradient's variance where it is not the method's own."""
        own = not estimator or self.estimator in (estimator, "none")
        return self.label if own else f"{self.label}, estimated with {estimator}"

    @property
    def rank(self) -> tuple[bool, bool, int, str, int]:
        """Sorts methods as the paper's tables do, and others after them."""
        known = _ORDER.index(self.estimator) if self.estimator in _ORDER else len(_ORDER)
        return (self.beyond, self.posterior != "gaussian", known, self.estimator, GUIDANCE.index(self.guidance))
