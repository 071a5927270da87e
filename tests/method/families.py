"""The posterior families as the tests use them: with options other than the defaults."""

from tests.method.reference import CLASSES, TRIALS

from silent_gradients import posteriors
from silent_gradients.posteriors import Binomial, Categorical, Posterior

FAMILIES: dict[str, type[Posterior]] = posteriors.FAMILIES | {
    "categorical": Categorical.of(CLASSES),
    "binomial": Binomial.of(TRIALS),
}
