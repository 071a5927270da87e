"""How a method reads in a table: the paper's words for its posterior, its estimator, and whether it is silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from silent_gradients.methods import METHODS

# A method that is not named here reads as it is written in the settings.
_ESTIMATORS = {
    "none": "None",
    "reparameterization": "Reparameterization",
    "gumbel-softmax": "Gumbel-Softmax",
    "reinforce": "REINFORCE",
}
_ORDER = tuple(_ESTIMATORS)

EXPERIMENTS = {
    "fixed": "fixed variance",
    "learnable": "learnable variance",
    "log-linear": "log-linear precision",
}
"""The experiments in the order of the report, as readers know them."""


@dataclass(frozen=True)
class MethodName:
    """A row of the paper's tables.

    Attributes:
        name: Name in cells, e.g. ``reinforce+silent``.
        posterior: ``gaussian`` (the paper's "Continuous") or ``bernoulli`` ("Discrete").
        estimator: Estimator of the sampled gradient; ``none`` where the silent gradient stands alone.
        silent: Whether a silent gradient trains the encoder, at least at first.
    """

    name: str
    posterior: str
    estimator: str
    silent: bool

    @classmethod
    def of(cls, experiment: str, name: str) -> MethodName:
        """The row of a method.

        Raises:
            KeyError: The experiment has no such method.
        """
        known: Any = METHODS
        method = known[experiment][name]
        alone = method.estimator in ("none", "silent")
        return cls(name, method.posterior, "none" if alone else method.estimator, alone or method.guide != "none")

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
        return f"{self.estimator_label} + SG" if self.silent else self.estimator_label

    def label_with(self, estimator: str) -> str:
        """The label, with the estimator that measured a gradient's variance where it is not the method's own."""
        own = not estimator or self.estimator in (estimator, "none")
        return self.label if own else f"{self.label}, estimated with {estimator}"

    @property
    def rank(self) -> tuple[bool, int, str, bool]:
        """Sorts methods as the paper's tables do, and others after them."""
        known = _ORDER.index(self.estimator) if self.estimator in _ORDER else len(_ORDER)
        return (self.posterior != "gaussian", known, self.estimator, self.silent)
