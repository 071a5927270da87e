"""The methods that are compared: the rows of the paper's tables, each a posterior and an estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from silent_gradients.settings import Experiment, PosteriorFamily


@dataclass(frozen=True)
class Method:
    """One method of an experiment.

    Attributes:
        name: As in cell names.
        posterior: Posterior family.
        estimator: Estimator of the reported decoder's gradient; ``none`` where the guide alone trains the encoder.
        guide: ``none``; ``only``: the silent gradient of a linear guide, then a frozen encoder (the paper's "None"
            rows); ``annealed``: its gradient mixed with the estimator's.
        baseline: The method without a guide whose learning rate an annealed one takes over.
        options: Names of the estimator's options, all of them settings of an experiment.
    """

    name: str
    posterior: PosteriorFamily
    estimator: str
    guide: Literal["none", "only", "annealed"] = "none"
    baseline: str | None = None
    options: tuple[str, ...] = ()


_BASELINES = (
    Method("reparameterization", "gaussian", "reparameterization"),
    Method("gumbel-softmax", "bernoulli", "gumbel-softmax", options=("temperature",)),
    Method("reinforce", "bernoulli", "reinforce", options=("decay",)),
)

_EXACT = (
    Method("silent-gaussian", "gaussian", "silent"),
    Method("silent-bernoulli", "bernoulli", "silent"),
)

METHODS: dict[Experiment, dict[str, Method]] = {
    "fixed": {method.name: method for method in (*_EXACT, *_BASELINES)},
    "learnable": {
        method.name: method
        for method in (
            Method("silent-gaussian", "gaussian", "none", guide="only"),
            Method("silent-bernoulli", "bernoulli", "none", guide="only"),
            *_BASELINES,
            *(
                Method(f"{base.name}+silent", base.posterior, base.estimator, "annealed", base.name, base.options)
                for base in _BASELINES
            ),
        )
    },
    "log-linear": {method.name: method for method in (*_EXACT, *_BASELINES)},
}
"""The methods of each experiment by name."""


def axes(experiment: Experiment, method: Method) -> tuple[str, ...]:
    """The grid's axes that concern a method; an annealed one takes its learning rate from its baseline."""
    if experiment == "fixed":
        return ("learning_rate", "mean_rate", "variance")
    if experiment == "log-linear":
        return ("learning_rate", "mean_rate", "precision_rate")
    return {
        "none": ("learning_rate",),
        "only": ("learning_rate", "mean_rate", "precision_rate", "cutoff_epoch"),
        "annealed": ("mean_rate", "precision_rate", "annealing_rate", "cutoff_epoch"),
    }[method.guide]
