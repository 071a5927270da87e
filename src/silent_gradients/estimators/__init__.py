"""Gradient estimators, a file per family."""

from silent_gradients.estimators.antithetic import Arm, Disarm
from silent_gradients.estimators.contract import (
    REGISTRY,
    Estimate,
    Estimator,
    EstimatorError,
    Given,
    State,
    create,
    register,
)
from silent_gradients.estimators.local_expectation import LocalExpectation
from silent_gradients.estimators.pathwise import (
    GumbelSoftmax,
    Reparameterization,
    StraightThrough,
    StraightThroughGumbelSoftmax,
)
from silent_gradients.estimators.score_function import Reinforce, ReinforceNoBaseline, ReinforcePerDatum, Rloo
from silent_gradients.estimators.silent import Silent
from silent_gradients.estimators.silent_control import (
    ReinforceSilentBaseline,
    ReinforceSilentControl,
    ReparameterizationSilentControl,
    ReparameterizationTangentControl,
    RlooSilentControl,
    RlooTangentControl,
)

__all__ = [
    "REGISTRY",
    "Arm",
    "Disarm",
    "Estimate",
    "Estimator",
    "EstimatorError",
    "Given",
    "GumbelSoftmax",
    "LocalExpectation",
    "Reinforce",
    "ReinforceNoBaseline",
    "ReinforcePerDatum",
    "ReinforceSilentBaseline",
    "ReinforceSilentControl",
    "Reparameterization",
    "ReparameterizationSilentControl",
    "ReparameterizationTangentControl",
    "Rloo",
    "RlooSilentControl",
    "RlooTangentControl",
    "Silent",
    "State",
    "StraightThrough",
    "StraightThroughGumbelSoftmax",
    "create",
    "register",
]
