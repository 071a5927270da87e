"""Exact, zero-variance gradients for variational autoencoders.

The names below are the public ones: they change as the version says (semantic versioning), everything else may change
at any time. They are loaded when they are first asked for: commands that need no torch start without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from silent_gradients import estimators, latent_noise
    from silent_gradients.decoders import (
        ConvolutionalDecoder,
        Decoder,
        ExactObjective,
        FixedVarianceDecoder,
        GaussianLikelihood,
        LinearPrecisionDecoder,
        LogLinearPrecisionDecoder,
        Objective,
        PositivePrecisionDecoder,
        SampledObjective,
        Standardization,
    )
    from silent_gradients.estimators import Estimate, Estimator, EstimatorError
    from silent_gradients.evaluation.gradient_variance import gradient_variance
    from silent_gradients.posteriors import (
        FAMILIES,
        Bernoulli,
        Binomial,
        Categorical,
        Gaussian,
        JointCumulants,
        Laplace,
        NonFiniteError,
        Poisson,
        Posterior,
        ShapeError,
        Sign,
        TiltedMoments,
        Uniform,
    )
    from silent_gradients.schedules import SilentSchedule
    from silent_gradients.vae import VAE

__all__ = [
    "FAMILIES",
    "VAE",
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ConvolutionalDecoder",
    "Decoder",
    "Estimate",
    "Estimator",
    "EstimatorError",
    "ExactObjective",
    "FixedVarianceDecoder",
    "Gaussian",
    "GaussianLikelihood",
    "JointCumulants",
    "Laplace",
    "LinearPrecisionDecoder",
    "LogLinearPrecisionDecoder",
    "NonFiniteError",
    "Objective",
    "Poisson",
    "PositivePrecisionDecoder",
    "Posterior",
    "SampledObjective",
    "ShapeError",
    "Sign",
    "SilentSchedule",
    "Standardization",
    "TiltedMoments",
    "Uniform",
    "estimators",
    "gradient_variance",
    "latent_noise",
]

_ELSEWHERE = {"VAE": "vae", "SilentSchedule": "schedules", "gradient_variance": "evaluation.gradient_variance"}
_ROOMS = ("posteriors", "decoders", "estimators")
_MODULES = ("estimators", "latent_noise")


if not TYPE_CHECKING:  # a type checker would take every misspelt name for one of these

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"silent_gradients.{name}")
        if name in __all__:
            for room in [_ELSEWHERE[name]] if name in _ELSEWHERE else _ROOMS:
                found = getattr(import_module(f"silent_gradients.{room}"), name, None)
                if found is not None:
                    globals()[name] = found
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
