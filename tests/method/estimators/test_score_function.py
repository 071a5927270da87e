"""Score-function gradients and silent control variates by hand: baselines, coefficients and the state they carry."""

import math

import pytest
import torch
from tests.method.families import forced, with_weights
from tests.method.reference import DOUBLE, codes, expectation, gradients, normal, seeded

from silent_gradients import FAMILIES, Bernoulli, FixedVarianceDecoder, LinearPrecisionDecoder, Standardization
from silent_gradients.estimators import EstimatorError, create
from silent_gradients.estimators.contract import SampledEstimator

B, K = 4, 3
LOGITS = normal(B, K, seed=100)
CPU = torch.device("cpu")


class Shifted:
    """A function of the bits that differs between images, far from zero; it keeps the samples it has seen."""

    def __init__(self, offset=-50.0):
        self.offset, self.seen = offset, []

    def sampled(self, z):
        self.seen.append(z)
        images = torch.arange(1, B + 1, dtype=DOUBLE)
        return self.offset + (z * torch.arange(1, K + 1, dtype=DOUBLE)).sum(-1) * images


class Linear:
    """A control: 2 z_1 + z_2 per image, and minus the image's number."""

    def sampled(self, z):
        return 2 * z[..., 0] + z[..., 1] - torch.arange(z.shape[1])

    def expectation(self, q):
        return 2 * q.mean[:, 0] + q.mean[:, 1] - torch.arange(len(q.mean))

    def is_exact(self, q):
        return True


class Product:
    """z_1 z_2 + 3 z_1 for each image: its mean's gradient is known by hand."""

    def sampled(self, z):
        return z[..., 0] * z[..., 1] + 3 * z[..., 0]


class Constant:
    """-1234.5, also as a control: without a gradient, whatever the samples."""

    def sampled(self, z):
        return torch.full(z.shape[:2], -1234.5, dtype=z.dtype) + 0 * z.sum(-1)

    def expectation(self, q):
        return torch.full((len(q.mean),), -1234.5, dtype=q.mean.dtype) + 0 * q.mean.sum(1)

    def is_exact(self, q):
        return True


def score(z):
    """Gradient of log q(z) by the logits: z - p."""
    return z - torch.sigmoid(LOGITS)


def steps_of(name, options, steps, **given):
    """Each step's samples, gradient, objective and state, on the same logits."""
    estimator, logits = create(name, options), LOGITS.clone().requires_grad_()
    state, generator = estimator.initial_state(CPU, 10), seeded(105)
    for step in range(steps):
        objective = Shifted(-50.0 - 10 * step)
        own = {key: value[step] for key, value in given.items()}
        value, surrogate, state = estimator(Bernoulli(logits), objective, generator=generator, state=state, **own)
        z = objective.seen[0]
        f = objective.sampled(z)
        torch.testing.assert_close(value, f.mean(0))
        yield z, gradients(surrogate.sum(), logits)[0], f, state


@pytest.mark.parametrize("name", ["reinforce-no-baseline", "rloo"])
def test_without_a_state_by_hand(name):
    for z, slope, f, state in steps_of(name, {"samples": 3}, 2):
        others = torch.stack([(f.sum(0) - f[one]) / 2 for one in range(3)])
        baseline = others if name == "rloo" else 0
        torch.testing.assert_close(slope, ((f - baseline)[..., None] * score(z)).mean(0))
        assert state == {}


@pytest.mark.parametrize("name", ["reinforce", "reinforce-silent-baseline"])
@pytest.mark.parametrize(("samples", "decay"), [(1, 0.9), (3, 0.9), (1, 0.0), (3, 0.0)])
def test_a_running_average_by_hand(name, samples, decay):
    """First step: mean of the batch-mates. Later: the bias-corrected running average of the steps before.

    With a silent baseline, of what the objective has above the control's expectation.
    """
    p = torch.sigmoid(LOGITS)
    known = 2 * p[:, 0] + p[:, 1] - torch.arange(B) if name == "reinforce-silent-baseline" else torch.zeros(B)
    options, average, weight = {"decay": decay, "samples": samples}, 0.0, 0.0
    for z, slope, f, state in steps_of(name, options, 3, control=[Linear()] * 3):
        above = (f - known).mean(0)
        mates = torch.stack([above[torch.arange(B) != image].mean() for image in range(B)])
        baseline = known + (average / weight if weight else mates)
        torch.testing.assert_close(slope, ((f - baseline)[..., None] * score(z)).mean(0), rtol=1e-5, atol=1e-5)
        average, weight = decay * average + (1 - decay) * float(above.mean()), decay * weight + (1 - decay)
        assert float(state["average"] / state["weight"]) == pytest.approx(average / weight, rel=1e-6)


def test_an_average_per_image_by_hand():
    """Images seen before have their own average, others the one over images, the first step its batch-mates."""
    visits = [torch.tensor(list(visit)) for visit in ([7, 2, 0, 3], [2, 7, 9, 1], [0, 1, 7, 5])]
    options = {"decay": 0.9, "image_decay": 0.25, "samples": 2}
    averages: dict[int, tuple[float, float]] = {}
    average, weight = 0.0, 0.0
    for step, (z, slope, f, state) in enumerate(steps_of("reinforce-per-datum", options, 3, index=visits)):
        per_image = f.mean(0)
        baseline = torch.empty(B, dtype=DOUBLE)
        for row, image in enumerate(visits[step].tolist()):
            own_average, own_weight = averages.get(image, (0.0, 0.0))
            if own_weight:
                baseline[row] = own_average / own_weight
            else:
                baseline[row] = average / weight if weight else (per_image.sum() - per_image[row]) / (B - 1)
            averages[image] = 0.25 * own_average + 0.75 * float(per_image[row]), 0.25 * own_weight + 0.75
        average, weight = 0.9 * average + 0.1 * float(f.mean()), 0.9 * weight + 0.1
        expected = ((f - baseline)[..., None] * score(z)).mean(0)
        torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-4)
        for image in range(10):
            own_average, own_weight = averages.get(image, (0.0, 0.0))
            assert float(state["image_average"][image]) == pytest.approx(own_average, rel=1e-6)
            assert float(state["image_weight"][image]) == pytest.approx(own_weight, rel=1e-6)


def test_images_from_elsewhere_have_the_average_over_images():
    for (_, slope, _, state), (_, plain, _, _) in zip(
        steps_of("reinforce-per-datum", {}, 3), steps_of("reinforce", {}, 3), strict=True
    ):
        assert torch.equal(slope, plain)
        assert torch.equal(state["image_weight"], torch.zeros(10))


UNBIASED = [
    ("reinforce", {"decay": 0.5}),
    ("reinforce", {"decay": 0.5, "samples": 2}),
    ("reinforce-no-baseline", {}),
    ("reinforce-per-datum", {"decay": 0.5}),
    ("reinforce-silent-baseline", {"decay": 0.5}),
    ("rloo", {}),
    ("reinforce-silent-control", {"decay": 0.5}),
    ("rloo-silent-control", {}),
]


@pytest.mark.parametrize(("name", "options"), UNBIASED)
@pytest.mark.parametrize("started", [False, True])
def test_exactly_unbiased_over_all_joint_draws(name, options, started):
    """Batch-mates and past steps are independent of a sample; its own value in the baseline would shrink the mean."""
    state = create(name, options).initial_state(CPU, 2)
    if started:
        past = {"average": 2.0, "weight": 0.5, "image_average": [3.0, 0.0], "image_weight": [0.75, 0.0]}
        past |= {"control_covariance": 0.3, "control_variance": 0.5}
        state = {key: torch.tensor(past[key]) for key in state}
    estimator, p = create(name, options), torch.sigmoid(LOGITS[:2, :2])
    assert isinstance(estimator, SampledEstimator)
    logits, found = LOGITS[:2, :2].clone().requires_grad_(), torch.zeros(2, 2, dtype=DOUBLE)
    # All joint draws of two images with two bits each.
    for joint in codes(4 * estimator.samples):
        z = joint.reshape(estimator.samples, 2, 2)
        q, index = forced(z)(logits), torch.tensor([1, 0])
        surrogate = estimator(q, Product(), control=Linear(), index=index, state=state).surrogate
        found += torch.where(z > 0, p, 1 - p).prod() * gradients(surrogate.sum(), logits)[0]
    v = p * (1 - p)
    exact = torch.stack([v[:, 0] * (p[:, 1] + 3), v[:, 1] * p[:, 0]], dim=1)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


PLAIN = {
    "reinforce-silent-control": "reinforce-silent-baseline",
    "rloo-silent-control": "rloo",
    "reparameterization-silent-control": "reparameterization",
}
D = 4
X = normal(B, D, seed=160)
PARAMETERS = {"bernoulli": normal(B, 2, seed=161), "gaussian": normal(B, 4, seed=162, scale=0.5)}
CASES = [(name, family) for name in PLAIN for family in PARAMETERS if create(name).supports(FAMILIES[family])]


class Bent:
    """A linear decoder's objective and a little more: a control takes most of the variance out."""

    def __init__(self):
        self.linear, self.seen = with_weights(FixedVarianceDecoder(2, D, 0.4), 163).objective(X), []

    def sampled(self, z):
        self.seen.append(z)
        return self.linear.sampled(z) + 0.1 * torch.sin(3 * z).sum(-1)


def controlled(name, family, steps, samples=2, decay=0.9, control=None):
    """Each step's objective, value, gradient and state, with the objective's linear part as control."""
    options = {"samples": samples} | ({"control_decay": decay} if name in PLAIN else {})
    estimator, parameters = create(name, options), PARAMETERS[family].clone().requires_grad_()
    state, generator = estimator.initial_state(CPU), seeded(164)
    for _ in range(steps):
        objective = Bent()
        q, used = FAMILIES[family](parameters), control or objective.linear
        value, surrogate, state = estimator(q, objective, control=used, generator=generator, state=state)
        yield objective, value, gradients(surrogate.sum(), parameters)[0], state


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_control_that_never_varies_changes_nothing(name, family):
    """Its gradient is 0, and so is its variance: 0 / 0 is no coefficient."""
    found = [list(controlled(which, family, 3, control=Constant()))[-1][2] for which in (name, PLAIN[name])]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


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
def test_three_steps_of_a_control_by_hand(name, family):
    """c is the ratio of decayed sums over the steps before."""
    linear, decay, samples = Bent().linear, 0.9, 3
    parameters = PARAMETERS[family].clone().requires_grad_()
    expected = linear.expectation(FAMILIES[family](parameters))
    exact = gradients(expected.sum(), parameters)[0]
    expected = expected.detach()
    covariance = variance = 0.0
    average, weight = 0.0, 0.0
    for step, (objective, _, slope, state) in enumerate(controlled(name, family, 3, samples)):
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
        slopes = torch.stack([slope for _, _, slope, _ in controlled(which, family, steps, decay=0.99)])[100:]
        spread[which] = float(slopes.var(0).sum())
        error = slopes.std(0) / math.sqrt(len(slopes))
        assert ((slopes.mean(0) - truth).abs() < 5 * error + 1e-9).all()
    assert spread[name] < 0.2 * spread[PLAIN[name]], spread


@pytest.mark.parametrize("name", ["reinforce-silent-control", "rloo-silent-control"])
def test_a_control_whose_expectation_is_approximate_is_refused(name):
    decoder = LinearPrecisionDecoder(2, Standardization.identity(D, 100.0)).double()
    estimator, q = create(name), FAMILIES["bernoulli"](PARAMETERS["bernoulli"])
    state = estimator.initial_state(CPU)
    with pytest.raises(EstimatorError, match=rf"control.*'{name}'.*bernoulli.*LinearPrecisionObjective"):
        estimator(q, Bent(), control=decoder.objective(X), generator=seeded(165), state=state)
    estimator(q, Bent(), control=decoder.control(X, q), generator=seeded(165), state=state)


OPTIONS = [("reinforce", "decay"), ("reinforce-per-datum", "image_decay"), *((name, "control_decay") for name in PLAIN)]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
@pytest.mark.parametrize("decay", [1.0, 1.5, -0.1, math.nan])
def test_impossible_decays(name, option, decay):
    with pytest.raises(EstimatorError, match=option):
        create(name, {option: decay})
