"""Gradient estimators of E_q[objective], one file each; importing the package fills the registry."""

from silent_gradients.estimators.arm import Arm
from silent_gradients.estimators.contract import REGISTRY, Estimate, Estimator, EstimatorError, State, create, register
from silent_gradients.estimators.disarm import Disarm
from silent_gradients.estimators.gumbel_softmax import GumbelSoftmax
from silent_gradients.estimators.local_expectation import LocalExpectation
from silent_gradients.estimators.reinforce import Reinforce
from silent_gradients.estimators.reinforce_no_baseline import ReinforceNoBaseline
from silent_gradients.estimators.reinforce_per_datum import ReinforcePerDatum
from silent_gradients.estimators.reinforce_silent_baseline import ReinforceSilentBaseline
from silent_gradients.estimators.reinforce_silent_control import ReinforceSilentControl
from silent_gradients.estimators.reparameterization import Reparameterization
from silent_gradients.estimators.reparameterization_silent_control import ReparameterizationSilentControl
from silent_gradients.estimators.rloo import Rloo
from silent_gradients.estimators.rloo_silent_control import RlooSilentControl
from silent_gradients.estimators.silent import Silent
from silent_gradients.estimators.straight_through import StraightThrough
from silent_gradients.estimators.straight_through_gumbel_softmax import StraightThroughGumbelSoftmax

__all__ = [
    "REGISTRY",
    "Arm",
    "Disarm",
    "Estimate",
    "Estimator",
    "EstimatorError",
    "GumbelSoftmax",
    "LocalExpectation",
    "Reinforce",
    "ReinforceNoBaseline",
    "ReinforcePerDatum",
    "ReinforceSilentBaseline",
    "ReinforceSilentControl",
    "Reparameterization",
    "ReparameterizationSilentControl",
    "Rloo",
    "RlooSilentControl",
    "Silent",
    "State",
    "StraightThrough",
    "StraightThroughGumbelSoftmax",
    "create",
    "register",
]
