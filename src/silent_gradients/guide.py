"""The silent guide as a module for any training loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from silent_gradients import checks
from silent_gradients.checks import ShapeError
from silent_gradients.decoders.likelihood import Decoder, ExactObjective, Standardization, batch_of
from silent_gradients.decoders.linear_precision import LinearPrecisionDecoder
from silent_gradients.posteriors.contract import Posterior, check_family
from silent_gradients.posteriors.gaussian import Gaussian
from silent_gradients.schedules import check_weight, scale_gradient


class SilentGuide(nn.Module):
    """A linear decoder whose exact gradient guides an encoder that a decoder of any kind trains (paper, Eq. 8).

    Between the encoder and the decoder of a plain VAE::

        kl = ...                                                          # of the moments that the encoder gave
        guided, mean, log_variance = self.guide(x, mean, log_variance, alpha=schedule.weight(epoch))
        loss = reconstruction + kl + guided                               # the decoder takes the returned moments

    The encoder then gets alpha times the guide's gradient, 1 - alpha times that of the reconstruction, and that of the
    KL divergence; both decoders get their own in full. The arithmetic leaves autocast and is in float32. Under
    ``DistributedDataParallel`` the module is a part of the wrapped one.

    Args:
        latent_dim: k.
        images: Training images [N, ...] in [0, 1], or part of them, which the decoder is standardised by; or their
            standardization, for instance ``Standardization.identity`` if a ``state_dict`` is loaded. None with a
            ``decoder``.
        family: Posterior family; the moments are its parameters in order, the logits of ``Bernoulli`` for example:
            parts of ``family.parameters_from(output)``, without which ``Uniform`` trains badly (``VAE`` does that).
        decoder: The guide's decoder, one with an exact expectation such as ``FixedVarianceDecoder``; None for
            ``LinearPrecisionDecoder``.

    Raises:
        ShapeError: There is no image, or the decoder has another number of latent variables.
        TypeError: ``family`` is no posterior family, the decoder has no exact expectation, or images are no floats.
        ValueError: There are neither images nor a decoder, k is no whole number of 1 or more, or the images are not in
            [0, 1].
    """

    def __init__(
        self,
        latent_dim: int,
        images: Tensor | Standardization | None = None,
        *,
        family: type[Posterior] = Gaussian,
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__()
        check_family(family)
        self.family = family
        checks.whole("latent_dim", latent_dim)
        if decoder is None:
            if images is None:
                raise ValueError("images: needed to standardise the guide by, got None; or give a decoder")
            scale = images if isinstance(images, Standardization) else Standardization.of(images)
            decoder = LinearPrecisionDecoder(latent_dim, scale)
        checks.instance("decoder", decoder, Decoder, "FixedVarianceDecoder is one")
        if decoder.latent_dim != latent_dim:
            raise ShapeError(f"decoder: expected one of {latent_dim} latent variables, got {decoder.latent_dim}")
        if not isinstance(decoder.objective(decoder.no_images()), ExactObjective):
            raise TypeError(f"decoder: expected one with an exact expectation, got {type(decoder).__name__}")
        self.decoder = decoder

    def forward(self, x: Tensor, *moments: Tensor, alpha: float | Tensor) -> tuple[Tensor, ...]:
        """Return the guide's loss and the moments for the other decoder.

        Args:
            x: Images [B, ...] in [0, 1].
            moments: The encoder's output, [B, k] each, in the order of the family's parameters: means and log
                variances, or logits.
            alpha: Weight of the guide's gradient in the encoder's, in [0, 1]. At 0 (a number, not a tensor) the guide
                is skipped and its loss is 0.

        Returns:
            Minus the mean over images of E_q log p(x|z) under the guide, a scalar in nats per image; and the moments,
            [B, k] each, with their values and 1 - alpha of their gradients.

        Raises:
            ShapeError: There is no image, the moments do not fit the family, or the images do not fit the moments.
            TypeError: Images or moments are no tensors of floating-point numbers.
            ValueError: alpha is not in [0, 1].
        """
        check_weight(alpha)
        latent_dim, batch = self.decoder.latent_dim, batch_of(x)
        for given in moments:
            checks.floats("moments", given)
        if len(moments) != self.family.parameters_per_latent or any(m.shape != (batch, latent_dim) for m in moments):
            raise ShapeError(
                f"moments: expected {self.family.parameters_per_latent} of shape [{batch}, {latent_dim}] for a "
                f"{self.family.name} posterior, got {[list(m.shape) for m in moments]}"
            )
        if not isinstance(alpha, Tensor) and alpha == 0:
            return self._nothing(x), *moments
        parameters = torch.cat([self.decoder.in_own_type("moments", scale_gradient(m, alpha)) for m in moments], dim=1)
        objective = self.decoder.objective(x.flatten(1))
        assert isinstance(objective, ExactObjective)
        return -objective.expectation(self.family(parameters)).mean(), *(scale_gradient(m, 1 - alpha) for m in moments)

    def _nothing(self, x: Tensor) -> Tensor:
        """Return 0; between processes with a zero gradient by the weights, which their reducer waits for."""
        zero = torch.zeros((), dtype=torch.float32, device=x.device)
        if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.is_grad_enabled():
            zero = zero + sum(0 * weight.sum() for weight in self.decoder.parameters())
        return zero
