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
from silent_gradients.decoders.linear_precision import (
    LinearHeadsDecoder,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    PositivePrecisionDecoder,
)

__all__ = [
    "ConvolutionalDecoder",
    "Decoder",
    "ExactObjective",
    "FixedVarianceDecoder",
    "GaussianLikelihood",
    "LinearHeadsDecoder",
    "LinearPrecisionDecoder",
    "LogLinearPrecisionDecoder",
    "Objective",
    "PositivePrecisionDecoder",
    "SampledObjective",
    "Standardization",
]
