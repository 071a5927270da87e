import math

import pytest
import torch
from tests.method.reference import DOUBLE, expectation, gradients, normal, seeded

from silent_gradients import FixedVarianceDecoder, LinearPrecisionDecoder, Standardization
from silent_gradients.estimators import EstimatorError, create
from silent_gradients.posteriors import FAMILIES

B, D, K = 3, 4, 2
X = normal(B, D, seed=160)
PARAMETERS = {"bernoulli": normal(B, K, seed=161), "gaussian": normal(B, 2 * K, seed=162, scale=0.5)}
CPU = torch.device("cpu")
PLAIN = {
    "reinforce-silent-control": "reinforce-silent-baseline",
    "rloo-silent-control": "rloo",
    "reparameterization-silent-control": "reparameterization",
}
CASES = [(name, family) for name in PLAIN for family in PARAMETERS if create(name).supports(FAMILIES[family])]


def linear_decoder():
    decoder = FixedVarianceDecoder(K, D, 0.4).double()
    with torch.no_grad():
        decoder.linear.weight.copy_(normal(D, K, seed=163))
        decoder.linear.bias.copy_(normal(D, seed=167))
    return decoder


class Bent:
    """The linear decoder's objective and a little more: a control takes most of the variance out."""

    def __init__(self, bend=0.1):
        self.bend, self.linear, self.seen = bend, linear_decoder().objective(X), []

    def sampled(self, z):
        self.seen.append(z)
        return self.linear.sampled(z) + self.bend * torch.sin(3 * z).sum(-1)


def steps_of(name, family, steps, samples=2, bend=0.1, decay=0.9):
    options = {"samples": samples} | ({"control_decay": decay} if name in PLAIN else {})
    estimator, parameters = create(name, options), PARAMETERS[family].clone().requires_grad_()
    state, generator = estimator.initial_state(CPU), seeded(164)
    for _ in range(steps):
        objective = Bent(bend)
        value, surrogate, state = estimator(
            FAMILIES[family](parameters),
            objective,
            control=linear_decoder().objective(X),
            generator=generator,
            state=state,
        )
        yield objective, value, gradients(surrogate.sum(), parameters)[0], state


@pytest.mark.parametrize(("name", "family"), CASES)
def test_the_first_step_is_that_of_the_estimator_without_a_control(name, family):
    (_, value, slope, _), (_, plain_value, plain, _) = (
        next(steps_of(which, family, 1)) for which in (name, PLAIN[name])
    )
    torch.testing.assert_close(value, plain_value, rtol=0, atol=0)
    torch.testing.assert_close(slope, plain, rtol=1e-12, atol=1e-12)


def sampled_gradients(name, family, objective, z, baseline, values):
    """Gradient of each sample of each image by the posterior's parameters, one at a time: [S, B, p k]."""
    found = torch.zeros(*z.shape[:2], PARAMETERS[family].shape[1], dtype=DOUBLE)
    for sample in range(z.shape[0]):
        for image in range(B):
            parameters = PARAMETERS[family].clone().requires_grad_()
            q = FAMILIES[family](parameters)
            if name.startswith("reparameterization"):
                mean, log_variance = parameters.chunk(2, dim=1)
                noise = (z[sample] - mean).detach() / (0.5 * log_variance).exp().detach()
                value = objective.sampled((mean + (0.5 * log_variance).exp() * noise)[None])[0, image]
            else:
                value = (values - baseline)[sample, image] * q.log_prob(z[sample][None])[0, image]
            found[sample, image] = gradients(value, parameters)[0][image]
    return found


@pytest.mark.parametrize(("name", "family"), CASES)
def test_three_steps_by_hand(name, family):
    """c is the ratio of decayed sums over the steps before."""
    linear, decay, samples = linear_decoder().objective(X), 0.9, 3
    parameters = PARAMETERS[family].clone().requires_grad_()
    expected = linear.expectation(FAMILIES[family](parameters))
    exact = gradients(expected.sum(), parameters)[0]
    expected = expected.detach()
    covariance = variance = 0.0
    average, weight = 0.0, 0.0
    for step, (objective, _, slope, state) in enumerate(steps_of(name, family, 3, samples)):
        z = objective.seen[0].detach()
        f, h = objective.sampled(z).detach(), linear.sampled(z).detach()
        control_baseline = expected
        if name.startswith("rloo"):
            baseline, control_baseline = ((values.sum(0) - values) / (samples - 1) for values in (f, h))
        else:
            above = (f - expected).mean(0)
            baseline = expected + (average / weight if weight else (above.sum() - above) / (B - 1))
            average, weight = 0.99 * average + 0.01 * float(above.mean()), 0.99 * weight + 0.01
        own = sampled_gradients(name, family, objective, z, baseline, f)
        excess = sampled_gradients(name, family, linear, z, control_baseline, h) - exact
        coefficient = covariance / variance if step else 0.0
        torch.testing.assert_close(slope, (own - coefficient * excess).mean(0), rtol=1e-4, atol=1e-4)
        covariance = decay * covariance + (1 - decay) * float((own * excess).mean())
        variance = decay * variance + (1 - decay) * float(excess.square().mean())
        assert float(state["control_covariance"]) == pytest.approx(covariance, rel=1e-5)
        assert float(state["control_variance"]) == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_the_variance_falls_and_the_mean_stays(name, family):
    """An objective close to the control: hardly any variance is left, beside the same estimator without a control."""
    steps, spread = 600, {}
    parameters = PARAMETERS[family].clone().requires_grad_()
    truth = gradients(expectation(family, parameters, Bent().sampled).sum(), parameters)[0]
    for which in (name, PLAIN[name]):
        slopes = torch.stack([slope for _, _, slope, _ in steps_of(which, family, steps, decay=0.99)])[100:]
        spread[which] = float(slopes.var(0).sum())
        error = slopes.std(0) / math.sqrt(len(slopes))
        assert ((slopes.mean(0) - truth).abs() < 5 * error + 1e-9).all()
    assert spread[name] < 0.2 * spread[PLAIN[name]], spread


@pytest.mark.parametrize("name", ["reinforce-silent-control", "rloo-silent-control"])
def test_a_control_whose_expectation_is_approximate_is_refused(name):
    decoder = LinearPrecisionDecoder(K, Standardization.identity(D, 100.0)).double()
    estimator, q = create(name), FAMILIES["bernoulli"](PARAMETERS["bernoulli"])
    state = estimator.initial_state(CPU)
    with pytest.raises(EstimatorError, match=rf"control.*'{name}'.*bernoulli.*LinearPrecisionObjective"):
        estimator(q, Bent(), control=decoder.objective(X), generator=seeded(165), state=state)
    estimator(q, Bent(), control=decoder.control(X, q), generator=seeded(165), state=state)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("decay", [1.0, 1.5, -0.1, math.nan])
def test_impossible_decays(name, decay):
    with pytest.raises(EstimatorError, match="control_decay"):
        create(name, {"control_decay": decay})


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_control_that_never_varies_changes_nothing(name, family):
    """Its gradient is 0, and so is its variance: 0 / 0 is no coefficient."""

    class Constant:
        def sampled(self, z):
            return torch.full(z.shape[:2], -3.0, dtype=z.dtype) + 0 * z.sum(-1)

        def expectation(self, q):
            return torch.full((len(q.mean),), -3.0, dtype=q.mean.dtype) + 0 * q.mean.sum(1)

        def is_exact(self, q):
            return True

    parameters, found = PARAMETERS[family].clone().requires_grad_(), []
    for which in (name, PLAIN[name]):
        estimator, generator = create(which, {"samples": 2}), seeded(166)
        state = estimator.initial_state(CPU)
        for _ in range(3):
            surrogate, state = estimator(
                FAMILIES[family](parameters), Bent(), control=Constant(), generator=generator, state=state
            )[1:]
        found.append(gradients(surrogate.sum(), parameters)[0])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
