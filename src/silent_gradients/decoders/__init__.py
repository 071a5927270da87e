"""Likelihoods p(x|z): linear decoders with exact expectations, and the convolutional decoders of the paper."""

from silent_gradients.decoders.convolutional import ConvolutionalDecoder
from silent_gradients.decoders.fixed_variance import FixedVarianceDecoder
from silent_gradients.decoders.likelihood import (
    Decoder,
    ExactObjective,
    GaussianLikelihood,
    Objective,
    SampledObjective,
    Standardization,
)
from silent_gradients.decoders.linear_precision import LinearPrecisionDecoder
from silent_gradients.decoders.log_linear_precision import LogLinearPrecisionDecoder
from silent_gradients.decoders.positive_precision import PositivePrecisionDecoder

LINEAR_DECODERS: dict[str, type[Decoder]] = {
    "fixed-variance": FixedVarianceDecoder,
    "linear-precision": LinearPrecisionDecoder,
    "log-linear-precision": LogLinearPrecisionDecoder,
    "positive-precision": PositivePrecisionDecoder,
}
"""Decoders with a known expectation by name; one that joins is tested under every posterior family."""

__all__ = [
    "LINEAR_DECODERS",
    "ConvolutionalDecoder",
    "Decoder",
    "ExactObjective",
    "FixedVarianceDecoder",
    "GaussianLikelihood",
    "LinearPrecisionDecoder",
    "LogLinearPrecisionDecoder",
    "Objective",
    "PositivePrecisionDecoder",
    "SampledObjective",
    "Standardization",
]
