"""Gradient estimators, a file per family."""

from silent_gradients.estimators.antithetic import Arm as Arm
from silent_gradients.estimators.antithetic import Disarm as Disarm
from silent_gradients.estimators.contract import REGISTRY as REGISTRY
from silent_gradients.estimators.contract import Estimate as Estimate
from silent_gradients.estimators.contract import Estimator as Estimator
from silent_gradients.estimators.contract import EstimatorError as EstimatorError
from silent_gradients.estimators.contract import Given as Given
from silent_gradients.estimators.contract import State as State
from silent_gradients.estimators.contract import create as create
from silent_gradients.estimators.contract import register as register
from silent_gradients.estimators.local_expectation import LocalExpectation as LocalExpectation
from silent_gradients.estimators.pathwise import GumbelSoftmax as GumbelSoftmax
from silent_gradients.estimators.pathwise import Reparameterization as Reparameterization
from silent_gradients.estimators.pathwise import StraightThrough as StraightThrough
from silent_gradients.estimators.pathwise import StraightThroughGumbelSoftmax as StraightThroughGumbelSoftmax
from silent_gradients.estimators.score_function import Reinforce as Reinforce
from silent_gradients.estimators.score_function import ReinforceNoBaseline as ReinforceNoBaseline
from silent_gradients.estimators.score_function import ReinforcePerDatum as ReinforcePerDatum
from silent_gradients.estimators.score_function import Rloo as Rloo
from silent_gradients.estimators.silent import Silent as Silent
from silent_gradients.estimators.silent_control import ReinforceSilentBaseline as ReinforceSilentBaseline
from silent_gradients.estimators.silent_control import ReinforceSilentControl as ReinforceSilentControl
from silent_gradients.estimators.silent_control import (
    ReparameterizationSilentControl as ReparameterizationSilentControl,
)
from silent_gradients.estimators.silent_control import (
    ReparameterizationTangentControl as ReparameterizationTangentControl,
)
from silent_gradients.estimators.silent_control import RlooSilentControl as RlooSilentControl
from silent_gradients.estimators.silent_control import RlooTangentControl as RlooTangentControl
