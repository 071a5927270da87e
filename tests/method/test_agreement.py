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
    Categorical,
    FixedVarianceDecoder,
    Gaussian,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
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


@pytest.mark.parametrize("kind", [FixedVarianceDecoder, LinearPrecisionDecoder, LogLinearPrecisionDecoder])
def test_constant_precisions_are_principal_components_and_factor_analysis(kind):
    fixed = kind is FixedVarianceDecoder
    model = PCA(K).fit(X.numpy()) if fixed else FactorAnalysis(K, svd_method="lapack").fit(X.numpy())
    weight, bias = tensor(model.components_.T), tensor(model.mean_)
    variance = torch.full((D,), model.noise_variance_).double() if fixed else tensor(model.noise_variance_)
    if fixed:
        weight = weight * tensor(np.sqrt(model.explained_variance_ - model.noise_variance_))
    # Factors may be turned: here so that their posterior is independent.
    _, turned = torch.linalg.eigh(weight.T @ (weight / variance[:, None]))
    weight = weight @ turned
    decoder = kind(K, D, model.noise_variance_) if fixed else kind(K, Standardization.identity(D, 1e3))
    mean, *precisions = (module for module in decoder.double().children())
    with torch.no_grad():
        mean.weight.copy_(weight)
        mean.bias.copy_(bias)
        for head in precisions:
            head.weight.zero_()
            head.bias.copy_(variance**-0.5 if kind is LinearPrecisionDecoder else -0.5 * variance.log())
        found = bound(decoder, X, linear_gaussian_posterior(weight, bias, variance))
    torch.testing.assert_close(found, tensor(model.score_samples(X.numpy())), rtol=1e-9, atol=1e-9)


def mixture(covariance, variance=None):
    """Four Gaussians that are equally likely, as the prior has the classes, and the posterior of the class."""
    model = GaussianMixture(4, covariance_type=covariance, random_state=0).fit(X.numpy())
    model.weights_ = np.full(4, 0.25)
    if variance is not None:
        model.precisions_cholesky_ = np.full(4, variance**-0.5)
    return model, Categorical.of(4)(tensor(model.predict_proba(X.numpy())).clamp_min(1e-300).log())


@pytest.mark.parametrize("kind", [FixedVarianceDecoder, LinearPrecisionDecoder, LogLinearPrecisionDecoder])
def test_classes_are_a_mixture_of_gaussians(kind):
    """Both heads take a value of their own for each class: any diagonal covariance."""
    fixed = kind is FixedVarianceDecoder
    model, q = mixture("spherical", 0.7) if fixed else mixture("diag")
    decoder = (kind(4, D, 0.7) if fixed else kind(4, Standardization.identity(D, 1e3))).double()
    mean, *precisions = (module for module in decoder.children())
    precision = tensor(model.precisions_cholesky_.T)
    with torch.no_grad():
        mean.weight.copy_(tensor(model.means_.T))
        mean.bias.zero_()
        for head in precisions:
            head.weight.copy_(precision if kind is LinearPrecisionDecoder else precision.log())
            head.bias.zero_()
        found = bound(decoder, X, q)
        if kind is LinearPrecisionDecoder:  # whose log term is approximate for classes
            cumulants = q.joint_cumulants(mean.weight, precisions[0].weight)
            approximate = decoder.expected_log_precision(q, cumulants.mean_s, cumulants.variance_s)
            found = found + (q.mean @ precision.log().T - approximate).sum(1)
    torch.testing.assert_close(found, tensor(model.score_samples(X.numpy())), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("rounded", [False, True])
def test_relaxed_bits_are_those_of_the_relaxed_law(temperature, rounded):
    decoder = FixedVarianceDecoder(K, D, 0.3).double()
    leaf, objective = normal(4, K, seed=254, scale=2.0).requires_grad_(), decoder.objective(X[:4])
    torch.manual_seed(1)
    z = distributions.RelaxedBernoulli(torch.tensor(temperature, dtype=DOUBLE), logits=leaf).rsample((3,))
    if rounded:
        z = z + (z.round() - z).detach()
    (wanted,) = torch.autograd.grad(objective.sampled(z).mean(0).sum(), leaf)
    name = "straight-through-gumbel-softmax" if rounded else "gumbel-softmax"
    torch.manual_seed(1)
    estimator = estimators.create(name, {"samples": 3, "temperature": temperature})
    (found,) = torch.autograd.grad(estimator(Bernoulli(leaf), objective, state={}).surrogate.sum(), leaf)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
