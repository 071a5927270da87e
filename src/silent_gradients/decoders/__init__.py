"""Likelihoods p(x|z): linear decoders with exact expectations, and the convolutional decoders of the paper."""

from silent_gradients.decoders.convolutional import ConvolutionalDecoder
from silent_gradients.decoders.fixed_variance import FixedVarianceDecoder
from silent_gradients.decoders.likelihood import Decoder, ExactObjective, GaussianLikelihood, Objective, Standardization
from silent_gradients.decoders.linear_precision import LinearPrecisionDecoder
from silent_gradients.decoders.log_linear_precision import LogLinearPrecisionDecoder
from silent_gradients.decoders.positive_precision import PositivePrecisionDecoder

__all__ = [
    "ConvolutionalDecoder",
    "Decoder",
    "ExactObjective",
    "FixedVarianceDecoder",
    "GaussianLikelihood",
    "LinearPrecisionDecoder",
    "LogLinearPrecisionDecoder",
    "Objective",
    "PositivePrecisionDecoder",
    "Standardization",
]
