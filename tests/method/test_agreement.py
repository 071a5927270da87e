"""Agreement with scikit-learn and torch.distributions.

Models that scikit-learn fits are special cases: with the true posterior the bound is its log-likelihood.
Estimators give what the laws of torch.distributions give at the same samples.
"""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture
from tests.method.reference import DOUBLE, normal
from torch import distributions

from silent_gradients import (
    Bernoulli,
    Binomial,
    Categorical,
    FixedVarianceDecoder,
    Gaussian,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    Poisson,
    Standardization,
    estimators,
)

N, D, K = 200, 6, 3
X = normal(N, K, seed=250) @ normal(K, D, seed=251) + 0.3 * normal(N, D, seed=252) * (1 + torch.arange(D))


def tensor(array):
    return torch.from_numpy(np.array(array, dtype=np.float64))


def bound(decoder, x, q):
    return decoder.objective(x).expectation(q) - q.kl_divergence()


def linear_gaussian_posterior(weight, bias, variance):
    """The posterior of z for x = W z + b + noise of these variances, where its covariance is diagonal."""
    precision = torch.eye(K, dtype=DOUBLE) + weight.T @ (weight / variance[:, None])
    assert (precision - precision.diag().diag()).abs().max() < 1e-9 * precision.max()
    mean = (X - bias) @ (weight / variance[:, None]) / precision.diag()
    return Gaussian(torch.cat([mean, -precision.diag().log().expand(N, -1)], dim=1))


def test_a_fixed_variance_is_probabilistic_principal_components():
    model = PCA(K).fit(X.numpy())
    noise = model.noise_variance_
    weight = tensor(model.components_.T * np.sqrt(model.explained_variance_ - noise))
    decoder = FixedVarianceDecoder(K, D, noise, tensor(model.mean_)).double()
    with torch.no_grad():
        decoder.linear.weight.copy_(weight)
        q = linear_gaussian_posterior(weight, decoder.linear.bias, torch.full((D,), noise, dtype=DOUBLE))
        found = bound(decoder, X, q)
    torch.testing.assert_close(found, tensor(model.score_samples(X.numpy())), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [LinearPrecisionDecoder, LogLinearPrecisionDecoder])
def test_a_constant_precision_is_factor_analysis(kind):
    model = FactorAnalysis(K, svd_method="lapack").fit(X.numpy())
    weight, bias, variance = tensor(model.components_.T), tensor(model.mean_), tensor(model.noise_variance_)
    # Factors may be turned: here so that their posterior is independent.
    _, turned = torch.linalg.eigh(weight.T @ (weight / variance[:, None]))
    weight = weight @ turned
    decoder = kind(K, Standardization.identity(D, 1e3)).double()
    with torch.no_grad():
        decoder.mean_head.weight.copy_(weight)
        decoder.mean_head.bias.copy_(bias)
        decoder.precision_head.weight.zero_()
        log_precision = -0.5 * variance.log()
        decoder.precision_head.bias.copy_(log_precision.exp() if kind is LinearPrecisionDecoder else log_precision)
        found = bound(decoder, X, linear_gaussian_posterior(weight, bias, variance))
    torch.testing.assert_close(found, tensor(model.score_samples(X.numpy())), rtol=1e-9, atol=1e-9)


def mixture(covariance, variance=None):
    """Four Gaussians that are equally likely, as the prior has the classes, and the posterior of the class."""
    model = GaussianMixture(4, covariance_type=covariance, random_state=0).fit(X.numpy())
    model.weights_ = np.full(4, 0.25)
    if variance is not None:
        model.precisions_cholesky_ = np.full(4, variance**-0.5)
    return model, Categorical.of(4)(tensor(model.predict_proba(X.numpy())).clamp_min(1e-300).log())


def test_classes_with_a_fixed_variance_are_a_mixture_of_gaussians():
    model, q = mixture("spherical", 0.7)
    decoder = FixedVarianceDecoder(4, D, 0.7).double()
    with torch.no_grad():
        decoder.linear.weight.copy_(tensor(model.means_.T))
        decoder.linear.bias.zero_()
        found = bound(decoder, X, q)
    torch.testing.assert_close(found, tensor(model.score_samples(X.numpy())), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [LinearPrecisionDecoder, LogLinearPrecisionDecoder])
def test_classes_with_precisions_are_a_mixture_of_gaussians(kind):
    """Both heads take a value of their own for each class: any diagonal covariance."""
    model, q = mixture("diag")
    precision = tensor(model.precisions_cholesky_.T)
    decoder = kind(4, Standardization.identity(D, 1e3)).double()
    with torch.no_grad():
        decoder.mean_head.weight.copy_(tensor(model.means_.T))
        decoder.precision_head.weight.copy_(precision if kind is LinearPrecisionDecoder else precision.log())
        for head in (decoder.mean_head, decoder.precision_head):
            head.bias.zero_()
        found = bound(decoder, X, q)
        if kind is LinearPrecisionDecoder:  # whose log term is approximate for classes
            cumulants = q.joint_cumulants(decoder.mean_head.weight, decoder.precision_head.weight)
            found = found + (q.mean @ precision.log().T - decoder.expected_log_precision(q, cumulants)).sum(1)
    torch.testing.assert_close(found, tensor(model.score_samples(X.numpy())), rtol=1e-8, atol=1e-8)


def gradient_of(name, parameters, family, objective, options=None, seed=1):
    """The gradient of an estimator that draws from PyTorch's own generator."""
    torch.manual_seed(seed)
    leaf = parameters.clone().requires_grad_()
    estimator = estimators.create(name, options)
    estimate = estimator(family(leaf), objective, state=estimator.initial_state(torch.device("cpu")))
    return torch.autograd.grad(estimate.surrogate.sum(), leaf)[0]


def fixed_objective(latents):
    decoder = FixedVarianceDecoder(latents, D, 0.3).double()
    return decoder.objective(X[:4])


def test_pathwise_gradients_are_those_of_the_normal_law():
    """With the same numbers of PyTorch's generator."""
    parameters, objective = normal(4, 2 * K, seed=253), fixed_objective(K)
    torch.manual_seed(1)
    leaf = parameters.clone().requires_grad_()
    mean, log_variance = leaf.chunk(2, dim=1)
    z = distributions.Normal(mean, (log_variance / 2).exp()).rsample((3,))
    (wanted,) = torch.autograd.grad(objective.sampled(z).mean(0).sum(), leaf)
    found = gradient_of("reparameterization", parameters, Gaussian, objective, {"samples": 3})
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("rounded", [False, True])
def test_relaxed_bits_are_those_of_the_relaxed_law(temperature, rounded):
    parameters, objective = normal(4, K, seed=254, scale=2.0), fixed_objective(K)
    torch.manual_seed(1)
    leaf = parameters.clone().requires_grad_()
    z = distributions.RelaxedBernoulli(torch.tensor(temperature, dtype=DOUBLE), logits=leaf).rsample((3,))
    if rounded:
        z = z + (z.round() - z).detach()
    (wanted,) = torch.autograd.grad(objective.sampled(z).mean(0).sum(), leaf)
    name = "straight-through-gumbel-softmax" if rounded else "gumbel-softmax"
    found = gradient_of(name, parameters, Bernoulli, objective, {"samples": 3, "temperature": temperature})
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


LAWS = {
    Bernoulli: lambda leaf: distributions.Bernoulli(logits=leaf),
    Poisson: lambda leaf: distributions.Poisson(leaf.exp()),
    Binomial: lambda leaf: distributions.Binomial(2, logits=leaf),
}


@pytest.mark.parametrize("family", LAWS, ids=lambda family: family.name)
@pytest.mark.parametrize("name", ["reinforce-no-baseline", "rloo"])
def test_score_function_gradients_are_those_of_the_laws(name, family):
    """At the same samples: the reward times the score, and a baseline that leaves each sample out."""
    parameters, objective, samples = normal(4, K, seed=255), fixed_objective(K), 3
    torch.manual_seed(1)
    z = family(parameters).sample(samples)
    leaf = parameters.clone().requires_grad_()
    score = LAWS[family](leaf).log_prob(z).sum(-1)
    value = objective.sampled(z).detach()
    others = torch.stack([value[[s for s in range(samples) if s != left]].mean(0) for left in range(samples)])
    reward = value - others if name == "rloo" else value
    (wanted,) = torch.autograd.grad((reward * score).mean(0).sum(), leaf)
    found = gradient_of(name, parameters, family, objective, {"samples": samples})
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
