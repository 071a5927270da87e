"""The model and the optimizers of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from silent_gradients import (
    ConvolutionalDecoder,
    Decoder,
    FixedVarianceDecoder,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    Standardization,
    TwoLayerDecoder,
    estimators,
)
from silent_gradients.decoders.linear_precision import LinearHeadsDecoder
from silent_gradients.estimators.contract import State
from silent_gradients.networks import encoder, set_precision
from silent_gradients.posteriors import FAMILIES
from silent_gradients.schedules import SilentSchedule
from silent_gradients.vae import VAE
from silent_study.settings import EXPERIMENTS, Activation, RunSettings, SilentSettings
from silent_study.training.optimizer import AdamW
from silent_study.training.seeds import derived_seed

PRECISION_HEADROOM = 1.13
"""Largest precision of a nonlinear decoder relative to that of a constant pixel, levels * sqrt(12). With 256 levels the
largest precision is 1000."""


def standardization(
    settings: RunSettings, mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> Standardization:
    """Return location and scale of the decoders' outputs; ``mean`` and ``deviation`` [D] describe the training data."""
    largest = PRECISION_HEADROOM * settings.data.levels * math.sqrt(12)
    if settings.initialization == "torch":
        return Standardization.identity(settings.data.dimensions, largest)
    return Standardization(_float32(mean), _float32(deviation), largest)


def build_vae(settings: RunSettings, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> VAE:
    """Build the autoencoder of a run on the CPU, with weights from the run's initialisation stream.

    ``mean`` and ``deviation`` [D] are those of the dequantized training data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(settings.seed, "initialization"))
        vae = _build(settings, mean, deviation)
    set_precision(vae, settings.precision)
    if settings.kl_warmup_epochs:
        vae.kl_weight = torch.ones(())
    # In the other layout, convolutions of few channels take up to half as much longer.
    return vae.to(memory_format=torch.channels_last)


def _build(settings: RunSettings, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> VAE:
    family, network, shape = FAMILIES[settings.posterior], settings.network, settings.data.shape
    small, silent = settings.initialization == "standardized", settings.silent
    scale = standardization(settings, mean, deviation)
    latent_dim, dimensions, variance = settings.latent_dim, settings.data.dimensions, settings.variance
    outputs, start = family.parameters_per_latent * latent_dim, _float32(mean) if small else None
    network_encoder = encoder(network.architecture, outputs, shape, network.encoder_channels, small_last_layer=small)

    def fixed() -> Decoder:
        if variance is None:
            raise ValueError("variance: the fixed-variance experiment needs a number, got null")
        return FixedVarianceDecoder(latent_dim, dimensions, variance, start, small_weights=small)

    def log_linear() -> Decoder:
        return LogLinearPrecisionDecoder(latent_dim, scale, small_weights=small)

    def two_layers(activation: Activation | None) -> Decoder:
        assert settings.hidden_units is not None
        assert activation is not None
        initial, learned = scale.scale.square() if variance is None else variance, variance is None
        sizes = latent_dim, dimensions, settings.hidden_units
        return TwoLayerDecoder(*sizes, activation, initial, start, learned_variance=learned)

    def convolutional() -> Decoder:
        sizes, factor = (latent_dim, shape, network.decoder_channels), settings.last_layer_scale
        return ConvolutionalDecoder(
            network.architecture, *sizes, scale, small_last_layer=small, last_layer_scale=factor
        )

    decoders: dict[str, Callable[[], Decoder]] = {
        "linear": fixed,
        "log-linear": log_linear,
        "two-layer": lambda: two_layers(settings.activation),
        "convolutional": convolutional,
    }
    decoder = decoders[EXPERIMENTS[settings.experiment].decoder]()
    guide: Decoder | None = None
    if silent is not None:
        log_term = silent.log_term
        guides: dict[str, Callable[[], Decoder]] = {
            "linear": lambda: LinearPrecisionDecoder(latent_dim, scale, log_term, small_weights=small),
            "log-linear": log_linear,
            "quadratic": lambda: two_layers("square"),
        }
        guide = guides[silent.guide]()
    named, options = settings.estimator, settings.estimator_options
    estimator = None if named == "none" else estimators.create(named, options)
    return VAE(network_encoder, family, decoder, estimator, guide, estimator if silent and silent.sampled else None)


def silent_schedule(settings: SilentSettings | None) -> SilentSchedule | None:
    """Return the schedule of a run's silent gradient; None if no guide trains the run's encoder."""
    if settings is None or settings.role == "control":
        return None
    only = settings.role == "only"
    return SilentSchedule(only, settings.plateau_epochs, settings.annealing_rate, settings.cutoff_epoch)


def load_snapshot(
    settings: RunSettings,
    mean: NDArray[np.float64],
    deviation: NDArray[np.float64],
    path: Path,
    device: torch.device,
) -> tuple[VAE, State]:
    """Load a run's autoencoder (see ``build_vae``) and its estimator's state from ``path``."""
    saved = torch.load(path, map_location=device, weights_only=True)
    vae = build_vae(settings, mean, deviation).to(device)
    vae.load_state_dict(saved["vae"])
    return vae, saved["state"]


def build_optimizers(settings: RunSettings, vae: VAE) -> dict[str, AdamW]:
    """Return AdamW optimizers: for the encoder, and for each decoder or each of its linear heads."""
    rate = settings.learning_rate
    mean_rate, precision_rate = settings.mean_rate or rate, settings.precision_rate or rate
    parts: dict[str, tuple[nn.Module, float]] = {"encoder": (vae.encoder, rate)}
    if isinstance(vae.decoder, LinearHeadsDecoder):
        parts["decoder_mean"] = (vae.decoder.mean_head, mean_rate)
        parts["decoder_precision"] = (vae.decoder.precision_head, precision_rate)
    else:
        parts["decoder"] = (vae.decoder, mean_rate)
    if settings.silent is not None and isinstance(vae.guide, LinearHeadsDecoder):
        parts["guide_mean"] = (vae.guide.mean_head, settings.silent.mean_rate)
        parts["guide_precision"] = (vae.guide.precision_head, settings.silent.precision_rate)
    elif settings.silent is not None and vae.guide is not None:
        parts["guide"] = (vae.guide, settings.silent.mean_rate)
    return {
        name: AdamW(module.parameters(), rate, settings.betas, settings.weight_decay, settings.gradient_clip)
        for name, (module, rate) in parts.items()
    }


def _float32(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values).to(torch.float32)
