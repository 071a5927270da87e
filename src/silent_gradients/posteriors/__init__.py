"""Mean-field posteriors q(z|x), by family."""

from silent_gradients.posteriors.bits import Bernoulli, Binomial, Sign
from silent_gradients.posteriors.categorical import Categorical
from silent_gradients.posteriors.contract import Posterior
from silent_gradients.posteriors.gaussian import Gaussian
from silent_gradients.posteriors.laplace import Laplace
from silent_gradients.posteriors.poisson import Poisson
from silent_gradients.posteriors.uniform import Uniform

FAMILIES: dict[str, type[Posterior]] = {
    family.name: family for family in (Gaussian, Bernoulli, Categorical, Sign, Binomial, Poisson, Laplace, Uniform)
}
"""Posterior families by name."""
