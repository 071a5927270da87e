"""Gradient estimators of E_q[objective], one file each; importing the package fills the registry."""

from silent_gradients.estimators import gumbel_softmax, reinforce, reparameterization, silent
from silent_gradients.estimators.contract import REGISTRY, Estimate, Estimator, EstimatorError, State, create
from silent_gradients.estimators.gumbel_softmax import GumbelSoftmax
from silent_gradients.estimators.reinforce import Reinforce
from silent_gradients.estimators.reparameterization import Reparameterization
from silent_gradients.estimators.silent import Silent

__all__ = [
    "REGISTRY",
    "Estimate",
    "Estimator",
    "EstimatorError",
    "GumbelSoftmax",
    "Reinforce",
    "Reparameterization",
    "Silent",
    "State",
    "create",
    "gumbel_softmax",
    "reinforce",
    "reparameterization",
    "silent",
]
