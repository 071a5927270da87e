"""Pixels that are bits: the one-dimensional integral by quadrature, the decoder by the sum over all nodes."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, special
from tests.method.families import FAMILIES, LATENTS, family_parameters, with_weights
from tests.method.reference import DOUBLE, expectation, gradients, normal

from silent_gradients import BernoulliDecoder, BernoulliLikelihood
from silent_gradients.decoders.bernoulli import cross_entropy

B, D = 3, 4
X = (normal(B, D, seed=600) > 0).double()
PARAMETERS = family_parameters(B, seed=601, scale=0.7)
MEANS = (-50.0, -17.0, -3.0, -0.4, 0.0, 1e-3, 2.0, 9.0, 17.0, 50.0)
VARIANCES = (1e-8, 1e-3, 0.3, 1.0, 4.0, 16.0, 100.0, 400.0)


def averaged(function, mean, variance):
    """E of a function of a normal variable."""
    deviation = math.sqrt(variance)

    def integrand(u):
        return math.exp(-0.5 * u * u) / math.sqrt(2 * math.pi) * function(mean + deviation * u)

    cuts = sorted({-14.0, 14.0, *np.clip([-6, -2, 0, 2, 6, *((np.array([-5, 0, 5]) - mean) / deviation)], -14, 14)})
    parts = itertools.pairwise(cuts)
    return sum(integrate.quad(integrand, *part, epsabs=1e-15, epsrel=1e-11, limit=200)[0] for part in parts)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("bit", [0.0, 1.0])
def test_values_and_derivatives_by_quadrature(dtype, bit):
    """Derivatives keep their digits where the bit is certain."""
    single, sign = dtype == torch.float32, 1 - 2 * bit
    close, relative_to = (1e-6, 4e-7) if single else (1e-12, 1e-12)
    for given in ((mean, variance) for mean in MEANS for variance in VARIANCES):
        mean, variance = (torch.tensor(each, dtype=dtype, requires_grad=True) for each in given)
        value = cross_entropy(mean, variance, torch.tensor(bit, dtype=dtype))
        by_mean, by_variance = gradients(value, mean, variance)
        m, v = float(mean.detach()), float(variance.detach())
        exact = averaged(lambda logit: float(np.logaddexp(0, sign * logit)), m, v)
        assert float(value.detach()) == pytest.approx(exact, abs=close, rel=relative_to)
        slope = sign * averaged(lambda logit: float(special.expit(sign * logit)), m, v)
        assert float(by_mean) == pytest.approx(slope, rel=1e-4 if single else 1e-8, abs=1e-13)
        curvature = 0.5 * averaged(lambda logit: float(special.expit(logit) * special.expit(-logit)), m, v)
        assert float(by_variance) == pytest.approx(curvature, rel=1e-4 if single else 1e-8, abs=1e-13)


def test_without_a_variance_it_is_the_loss_of_the_logit():
    mean = torch.tensor([-50.0, -1.0, 0.0, 3.0, 40.0], requires_grad=True)
    for bit in (0.0, 0.3, 1.0):
        x = torch.full_like(mean, bit)
        value = cross_entropy(mean, torch.zeros(5), x)
        torch.testing.assert_close(
            value, torch.nn.functional.binary_cross_entropy_with_logits(mean, x, reduction="none")
        )
    assert torch.isfinite(gradients(value.sum(), mean)[0]).all()


def test_derivatives_of_the_derivatives():
    mean, variance = normal(6, seed=602, scale=3.0).requires_grad_(), normal(6, seed=603).exp().requires_grad_()
    x = (normal(6, seed=604) > 0).double()
    assert torch.autograd.gradcheck(lambda m, v: cross_entropy(m, v, x), (mean, variance))
    assert torch.autograd.gradgradcheck(lambda m, v: cross_entropy(m, v, x), (mean, variance), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_taken_for_normal(family):
    """Under Gaussian posteriors they are; under others it is close where many latent variables share in a pixel."""
    decoder = with_weights(BernoulliDecoder(LATENTS[family], D), 605, 0.3, 1.0)
    found = decoder.objective(X).expectation(FAMILIES[family](PARAMETERS[family]))
    truth = expectation(family, PARAMETERS[family], lambda z: decoder.likelihood(z).log_prob(X))
    torch.testing.assert_close(found, truth, rtol=0.02, atol=0.02)


def test_density_matches_torch_distributions():
    logits, x = normal(5, B, D, seed=606, scale=3.0), torch.rand(B, D, dtype=DOUBLE)
    law = torch.distributions.Bernoulli(logits=logits, validate_args=False)
    likelihood = BernoulliLikelihood(logits)
    torch.testing.assert_close(likelihood.log_prob(X), law.log_prob(X.expand(5, B, D)).sum(-1))
    torch.testing.assert_close(likelihood.log_prob(x), law.log_prob(x.expand(5, B, D)).sum(-1))
    torch.testing.assert_close(likelihood.mean, law.mean)


def test_starts_at_the_mean_of_the_data():
    mean = torch.tensor([0.0, 0.2, 0.9, 1.0])
    probability = BernoulliDecoder(3, 4, mean).likelihood(torch.zeros(1, 1, 3)).mean[0, 0]
    torch.testing.assert_close(probability, mean.clamp(1 / (1 + math.exp(5)), 1 / (1 + math.exp(-5))))
