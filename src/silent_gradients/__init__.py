"""Exact, zero-variance gradients for variational autoencoders.

The names below are the public ones and follow semantic versioning; everything else may change at any time.
"""

from importlib.metadata import PackageNotFoundError, version

from silent_gradients import estimators, latent_noise
from silent_gradients.checks import NonFiniteError, ShapeError
from silent_gradients.decoders.bernoulli import BernoulliDecoder, BernoulliLikelihood
from silent_gradients.decoders.convolutional import ConvolutionalDecoder
from silent_gradients.decoders.fixed_variance import FactorAnalysisDecoder, FixedVarianceDecoder
from silent_gradients.decoders.likelihood import (
    ClosedFormObjective,
    Decoder,
    ExactObjective,
    GaussianLikelihood,
    Likelihood,
    Objective,
    SampledObjective,
    Standardization,
)
from silent_gradients.decoders.linear_precision import (
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    PositivePrecisionDecoder,
)
from silent_gradients.decoders.two_layer import TwoLayerDecoder
from silent_gradients.estimators import Estimate, Estimator, EstimatorError
from silent_gradients.evaluation import limits
from silent_gradients.evaluation.gradient_variance import gradient_variance
from silent_gradients.evaluation.importance_weighted import importance_weighted
from silent_gradients.evaluation.metrics import Metrics, bits_per_dimension, evaluate
from silent_gradients.guide import SilentGuide
from silent_gradients.posteriors import FAMILIES
from silent_gradients.posteriors.bits import Bernoulli, Binomial, Sign
from silent_gradients.posteriors.categorical import Categorical
from silent_gradients.posteriors.contract import JointCumulants, Posterior, TiltedMoments
from silent_gradients.posteriors.gaussian import Gaussian
from silent_gradients.posteriors.laplace import Laplace
from silent_gradients.posteriors.poisson import Poisson
from silent_gradients.posteriors.uniform import Uniform
from silent_gradients.schedules import SilentSchedule, scale_gradient
from silent_gradients.vae import VAE, Step

try:
    __version__ = version("silent-gradients")
except PackageNotFoundError:  # the sources, not installed
    __version__ = "0+source"

__all__ = [
    "FAMILIES",
    "VAE",
    "Bernoulli",
    "BernoulliDecoder",
    "BernoulliLikelihood",
    "Binomial",
    "Categorical",
    "ClosedFormObjective",
    "ConvolutionalDecoder",
    "Decoder",
    "Estimate",
    "Estimator",
    "EstimatorError",
    "ExactObjective",
    "FactorAnalysisDecoder",
    "FixedVarianceDecoder",
    "Gaussian",
    "GaussianLikelihood",
    "JointCumulants",
    "Laplace",
    "Likelihood",
    "LinearPrecisionDecoder",
    "LogLinearPrecisionDecoder",
    "Metrics",
    "NonFiniteError",
    "Objective",
    "Poisson",
    "PositivePrecisionDecoder",
    "Posterior",
    "SampledObjective",
    "ShapeError",
    "Sign",
    "SilentGuide",
    "SilentSchedule",
    "Standardization",
    "Step",
    "TiltedMoments",
    "TwoLayerDecoder",
    "Uniform",
    "__version__",
    "bits_per_dimension",
    "estimators",
    "evaluate",
    "gradient_variance",
    "importance_weighted",
    "latent_noise",
    "limits",
    "scale_gradient",
]
