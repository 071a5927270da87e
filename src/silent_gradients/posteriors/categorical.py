"""One of several classes."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from silent_gradients import latent_noise
from silent_gradients.checks import ShapeError
from silent_gradients.latent_noise import NoiseSource
from silent_gradients.posteriors.contract import JointCumulants, TiltedMoments, WithOption, log_modulus
from silent_gradients.posteriors.tilting import moments_by_rows


class Categorical(WithOption):
    """Independent groups of C latent variables of which one is 1 and the others are 0; the prior is uniform.

    ``parameters`` [B, k] are the logits, a group's side by side: k = G C. The variables of a group depend on each
    other, so cumulants of linear functions are sums over groups, not over variables. ``variance`` and the higher
    cumulants describe each variable by itself.

    C is 2 by default; ``Categorical.of(10)``, or a subclass with other ``classes``, changes it.

    Raises:
        ShapeError: k is not a multiple of C.
    """

    name = "categorical"
    parameters_per_latent = 1
    support = (0.0, 1.0)
    has_independent_coordinates = False
    classes: ClassVar[int] = 2
    """C."""

    option, least = "classes", 2

    def __init__(self, parameters: Tensor) -> None:
        super().__init__(parameters)
        if self.latent_dim % self.classes:
            raise ShapeError(
                f"parameters: expected shape [B, {self.classes} G] for groups of {self.classes} classes, "
                f"got {list(parameters.shape)}"
            )
        self.log_probabilities = _log_probabilities(parameters.unflatten(1, (-1, self.classes)))
        """[B, G, C]."""
        self.probabilities = self.log_probabilities.exp()
        """[B, G, C]."""
        self.mean = self.probabilities.flatten(1)
        # 1 - p in this form keeps its digits where p rounds to 1.
        self.variance = (self.probabilities * -self.log_probabilities.expm1()).flatten(1)

    @property
    def third_cumulant(self) -> Tensor:
        return self.variance * (1 - 2 * self.mean)

    @property
    def fourth_cumulant(self) -> Tensor:
        return self.variance * (1 - 6 * self.variance)

    def _centred(self, weight: Tensor) -> Tensor:
        """Return weights [D, k] as [G, C, D], less their mean over the classes of each group.

        This changes a linear function by a constant alone, and avoids cancellation in the differences of moments.
        """
        grouped = weight.unflatten(1, (-1, self.classes))
        return (grouped - grouped.mean(2, keepdim=True)).permute(1, 2, 0)

    def _averaged(self, values: Tensor) -> Tensor:
        """Return the expectations [G, B, D] of a value [G, C, D] per class."""
        return self.probabilities.transpose(0, 1) @ values

    def linear_variance(self, weight: Tensor) -> Tensor:
        a = self._centred(weight)
        # Where a group is certain the difference is 0, to rounding on either side.
        return (self._averaged(a.square()) - self._averaged(a).square()).sum(0).clamp_min(0)

    def total_variance(self, weight: Tensor) -> Tensor:
        # sum_cd p_c p_d |w_c - w_d|^2 / 2 over the classes of each group has no term below 0.
        a = self._centred(weight)
        products = a @ a.transpose(1, 2)
        norms = products.diagonal(dim1=1, dim2=2)
        distances = norms[:, :, None] + norms[:, None] - 2 * products
        p = self.probabilities.transpose(0, 1)
        return 0.5 * ((p @ distances) * p).sum((0, 2))

    def higher_cumulants(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        joint = self.joint_cumulants(weight, weight)
        assert joint.k12 is not None
        assert joint.k22 is not None
        return joint.k12, joint.k22

    def joint_cumulants(self, weight_m: Tensor, weight_s: Tensor) -> JointCumulants:
        """Return the joint cumulants of m = A z and s = B z: sums over groups.

        Eight products of the size of a decoder's, with [G, B, D] in between.
        """
        a, b = self._centred(weight_m), self._centred(weight_s)
        ma, mb = self._averaged(a), self._averaged(b)
        maa, mbb, mab = self._averaged(a * a), self._averaged(b * b), self._averaged(a * b)
        maab, mabb, maabb = self._averaged(a * a * b), self._averaged(a * b * b), self._averaged((a * b).square())
        k12 = mabb - ma * mbb + 2 * mb * (ma * mb - mab)
        k21 = maab - mb * maa + 2 * ma * (ma * mb - mab)
        k22 = (
            maabb
            - 2 * (ma * mabb + mb * maab + mab.square())
            - maa * mbb
            + 2 * (ma.square() * mbb + maa * mb.square())
            + 8 * ma * mb * mab
            - 6 * (ma * mb).square()
        )
        means = F.linear(self.mean, weight_m), F.linear(self.mean, weight_s)
        variances = (maa - ma.square()).sum(0).clamp_min(0), (mbb - mb.square()).sum(0).clamp_min(0)
        return JointCumulants(*means, *variances, (mab - ma * mb).sum(0), k12.sum(0), k21.sum(0), k22.sum(0))

    def tilted_moments(self, weight_m: Tensor, exponent: Tensor) -> TiltedMoments:
        """Return the moments; tilted classes differ in every dimension: linear in k, elementwise over [B, D, k]."""
        groups = self.probabilities.shape[1:]

        def moments(weight: Tensor, exponent: Tensor, log_probabilities: Tensor) -> tuple[Tensor, ...]:
            natural = log_probabilities + exponent.unflatten(1, groups)[:, None]
            tilted, values = natural.softmax(3), weight.unflatten(1, groups)[:, None]
            mean = (tilted * values).sum(3, keepdim=True)
            variance = (tilted * (values - mean).square()).sum((2, 3))
            return natural.logsumexp(3).sum(2), mean.sum((2, 3)), variance

        return TiltedMoments(*moments_by_rows(moments, weight_m, exponent, self.log_probabilities))

    def log_characteristic(self, frequency: Tensor) -> tuple[Tensor, Tensor]:
        angle = frequency.unflatten(1, self.probabilities.shape[1:])[:, None]
        real, imaginary = ((self.probabilities * part).sum(3) for part in (angle.cos(), angle.sin()))
        return log_modulus(real, imaginary).sum(2), torch.atan2(imaginary, real).sum(2)

    def kl_divergence(self) -> Tensor:
        return ((self.probabilities * self.log_probabilities).sum(2) + math.log(self.classes)).sum(1)

    def sample(self, samples: int, generator: NoiseSource | None = None) -> Tensor:
        """Return one-hot samples by the Gumbel-max trick."""
        with torch.no_grad():
            logits = self.log_probabilities
            uniform = latent_noise.uniform((samples, *logits.shape), logits, generator)
            chosen = (logits - (-uniform.log()).log()).argmax(-1, keepdim=True)
            return (chosen == torch.arange(self.classes, device=logits.device)).to(logits.dtype).flatten(2)

    def log_prob(self, z: Tensor) -> Tensor:
        return (z * self.log_probabilities.flatten(1)).sum(-1)


def _log_probabilities(logits: Tensor) -> Tensor:
    """Return the logarithm of softmax of logits [B, G, C].

    The likeliest class has log p = -log(1 + rest), which keeps its digits, and its gradient's, where p rounds to 1.
    """
    likeliest = logits.argmax(2, keepdim=True)
    others = likeliest != torch.arange(logits.shape[2], device=logits.device)
    difference = torch.where(others, logits - logits.gather(2, likeliest), 0)
    rest = torch.where(others, difference.exp(), 0).sum(2, keepdim=True)
    return difference - rest.log1p()


__getattr__ = Categorical.named
