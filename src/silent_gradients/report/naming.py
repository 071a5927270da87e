"""How a method's name reads in a table: its posterior, its estimator, and whether a silent gradient takes part."""

from __future__ import annotations

from dataclasses import dataclass

_LABELS = {
    "none": "None",
    "reparameterization": "Reparameterization",
    "gumbel-softmax": "Gumbel-Softmax",
    "reinforce": "REINFORCE",
}
_POSTERIORS = {"silent-gaussian": "gaussian", "reparameterization": "gaussian"}
_ORDER = ("none", "reparameterization", "gumbel-softmax", "reinforce")
_SUFFIX = "+silent"


@dataclass(frozen=True)
class Method:
    """A row of the paper's tables.

    Attributes:
        name: Name in cells, e.g. ``reinforce+silent``.
        posterior: ``gaussian`` (the paper's "Continuous") or ``bernoulli`` ("Discrete").
        estimator: Name of the baseline estimator; ``none`` where the silent gradient stands alone.
        silent: Whether a silent gradient trains the encoder, at least at first.
    """

    name: str
    posterior: str
    estimator: str
    silent: bool

    @classmethod
    def of(cls, name: str, posterior: str | None = None) -> Method:
        """Read a method's name; ``posterior`` is what a run of it says, for methods that the paper does not have."""
        alone = name.startswith("silent-")
        estimator = "none" if alone else name.removesuffix(_SUFFIX)
        family = posterior or _POSTERIORS.get(name.removesuffix(_SUFFIX), "bernoulli")
        return cls(name, family, estimator, alone or name.endswith(_SUFFIX))

    @property
    def space(self) -> str:
        """The paper's word for the posterior."""
        return "Continuous" if self.posterior == "gaussian" else "Discrete"

    @property
    def estimator_label(self) -> str:
        """The estimator as tables print it."""
        return _LABELS.get(self.estimator, self.estimator)

    @property
    def label(self) -> str:
        """The method in words, e.g. ``REINFORCE + SG`` or ``Silent (Gaussian)``."""
        if self.estimator == "none":
            return f"Silent ({self.posterior.capitalize()})"
        return f"{self.estimator_label} + SG" if self.silent else self.estimator_label

    @property
    def rank(self) -> tuple[int, int, str, bool]:
        """Sorts methods as the paper's tables do, and others after them."""
        known = _ORDER.index(self.estimator) if self.estimator in _ORDER else len(_ORDER)
        return (self.posterior != "gaussian", known, self.estimator, self.silent)
