"""Models that scikit-learn fits are special cases: with the true posterior the bound is its log-likelihood."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture
from tests.reference import DOUBLE, normal

from silent_gradients import (
    Categorical,
    FixedVarianceDecoder,
    Gaussian,
    LinearPrecisionDecoder,
    LogLinearPrecisionDecoder,
    Standardization,
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
