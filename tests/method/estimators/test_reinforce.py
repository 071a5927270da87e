import math

import pytest
import torch
from tests.method.reference import DOUBLE, codes, gradients, normal, seeded

from silent_gradients.estimators import EstimatorError, create
from silent_gradients.estimators.contract import SampledEstimator
from silent_gradients.posteriors import Bernoulli

B, K = 4, 3
LOGITS = normal(B, K, seed=100)
CPU = torch.device("cpu")


class Shifted:
    """A function of the bits that differs between images, far from zero."""

    def __init__(self, offset=-50.0):
        self.offset = offset

    def sampled(self, z):
        return self.offset + (z * torch.arange(1, K + 1, dtype=DOUBLE)).sum(-1) * torch.arange(1, B + 1, dtype=DOUBLE)


class Recorded(Shifted):
    def __init__(self, offset=-50.0):
        super().__init__(offset)
        self.z: list[torch.Tensor] = []

    def sampled(self, z):
        self.z.append(z)
        return super().sampled(z)


def score(logits, z):
    """Gradient of log q(z) by the logits: z - p."""
    return z - torch.sigmoid(logits)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_three_steps_by_hand(samples, decay):
    """First step: mean of the batch-mates. Later: the bias-corrected running average of the steps before."""
    estimator = create("reinforce", {"decay": decay, "samples": samples})
    logits = LOGITS.clone().requires_grad_()
    state, generator = estimator.initial_state(CPU), seeded(101)
    average, weight = 0.0, 0.0
    for step in range(3):
        objective = Recorded(-50.0 - 10 * step)
        value, surrogate, state = estimator(Bernoulli(logits), objective, generator=generator, state=state)
        (z,) = objective.z
        f = Shifted(-50.0 - 10 * step).sampled(z)
        per_image = f.mean(0)
        if step == 0:
            baseline = torch.stack([per_image[torch.arange(B) != image].mean() for image in range(B)])
        else:
            baseline = torch.full((B,), average / weight, dtype=DOUBLE)
        expected = ((f - baseline)[..., None] * score(LOGITS, z)).mean(0)
        torch.testing.assert_close(gradients(surrogate.sum(), logits)[0], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(value, per_image)
        average = decay * average + (1 - decay) * float(f.mean())
        weight = decay * weight + (1 - decay)
    assert float(state["average"] / state["weight"]) == pytest.approx(average / weight, rel=1e-6)


class Linear:
    """A control: 2 z_1 + z_2 per image, and minus the image's number."""

    def sampled(self, z):
        return 2 * z[..., 0] + z[..., 1] - torch.arange(z.shape[1])

    def expectation(self, q):
        return 2 * q.mean[:, 0] + q.mean[:, 1] - torch.arange(len(q.mean))

    def is_exact(self, q):
        return True


def enumerated_mean(name, options, state):
    """Mean gradient over all joint draws of two images with two bits each, each draw forced on the estimator."""
    estimator = create(name, options)
    assert isinstance(estimator, SampledEstimator)
    logits = LOGITS[:2, :2].clone().requires_grad_()
    total, mass = torch.zeros(2, 2, dtype=DOUBLE), 0.0
    p = torch.sigmoid(logits.detach())
    for joint in codes(4 * estimator.samples):
        z = joint.reshape(estimator.samples, 2, 2)
        probability = float(torch.where(z > 0, p, 1 - p).prod())

        class Forced(Bernoulli):
            def sample(self, samples, generator=None, z=z):
                return z

        index = torch.tensor([1, 0])
        surrogate = estimator(Forced(logits), Product(), control=Linear(), index=index, state=state).surrogate
        total += probability * gradients(surrogate.sum(), logits)[0]
        mass += probability
    assert mass == pytest.approx(1)
    return total, p


class Product:
    """z_1 z_2 + 3 z_1 for each image: its mean's gradient is known by hand."""

    def sampled(self, z):
        return z[..., 0] * z[..., 1] + 3 * z[..., 0]


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
    found, p = enumerated_mean(name, options, state)
    v = p * (1 - p)
    exact = torch.stack([v[:, 0] * (p[:, 1] + 3), v[:, 1] * p[:, 0]], dim=1)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


def steps_of(name, options, steps, **given):
    """Each step's samples, gradient, objective and state, on the same logits."""
    estimator, logits = create(name, options), LOGITS.clone().requires_grad_()
    state, generator = estimator.initial_state(CPU, 10), seeded(105)
    for step in range(steps):
        recorded = Recorded(-50.0 - 10 * step)
        own = {key: value[step] for key, value in given.items()}
        _, surrogate, state = estimator(Bernoulli(logits), recorded, generator=generator, state=state, **own)
        (z,) = recorded.z
        yield z, gradients(surrogate.sum(), logits)[0], Shifted(recorded.offset).sampled(z), state


def test_no_baseline_by_hand():
    for z, slope, f, state in steps_of("reinforce-no-baseline", {"samples": 3}, 2):
        torch.testing.assert_close(slope, (f[..., None] * score(LOGITS, z)).mean(0))
        assert state == {}


def test_leave_one_out_by_hand():
    for z, slope, f, state in steps_of("rloo", {"samples": 3}, 2):
        expected = torch.zeros_like(LOGITS)
        for one in range(3):
            others = (f.sum(0) - f[one]) / 2
            expected += (f[one] - others)[:, None] * score(LOGITS, z[one]) / 3
        torch.testing.assert_close(slope, expected)
        assert state == {}


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
        expected = ((f - baseline)[..., None] * score(LOGITS, z)).mean(0)
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


def test_an_average_per_image_needs_to_know_how_many_there_are():
    estimator = create("reinforce-per-datum")
    with pytest.raises(EstimatorError, match=r"images.*initial_state"):
        estimator(Bernoulli(LOGITS), Shifted(), index=torch.arange(B), state=estimator.initial_state(CPU))


@pytest.mark.parametrize("index", [torch.arange(B + 1), torch.arange(1), torch.zeros(B, 1, dtype=torch.long)])
def test_an_index_of_another_shape_is_refused(index):
    estimator = create("reinforce-per-datum")
    with pytest.raises(EstimatorError, match=rf"index: expected shape \[{B}\], got "):
        estimator(Bernoulli(LOGITS), Shifted(), index=index, state=estimator.initial_state(CPU, 10))


def test_a_silent_baseline_by_hand():
    """The control's expectation plus the running average of what the objective had above it."""
    controls = [Linear()] * 3
    p = torch.sigmoid(LOGITS)
    expectation = 2 * p[:, 0] + p[:, 1] - torch.arange(B)
    average, weight = 0.0, 0.0
    options = {"decay": 0.9, "samples": 2}
    for z, slope, f, state in steps_of("reinforce-silent-baseline", options, 3, control=controls):
        above = (f - expectation).mean(0)
        offset = average / weight if weight else (above.sum() - above) / (B - 1)
        expected = ((f - expectation - offset)[..., None] * score(LOGITS, z)).mean(0)
        torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-5)
        average, weight = 0.9 * average + 0.1 * float(above.mean()), 0.9 * weight + 0.1
        assert float(state["average"]) == pytest.approx(average, rel=1e-6)


def test_the_baseline_takes_a_constant_out():
    """After many steps on a constant objective the score has no weight left."""
    estimator = create("reinforce", {"decay": 0.5})
    logits = LOGITS.clone().requires_grad_()

    class Constant:
        def sampled(self, z):
            return torch.full(z.shape[:2], -1234.5, dtype=z.dtype)

    state, generator = estimator.initial_state(CPU), seeded(102)
    for _ in range(5):
        _, surrogate, state = estimator(Bernoulli(logits), Constant(), generator=generator, state=state)
        assert gradients(surrogate.sum(), logits)[0].abs().max() < 1e-3


def test_state_survives_a_checkpoint(tmp_path):
    estimator = create("reinforce")
    logits = LOGITS.clone().requires_grad_()
    state = estimator.initial_state(CPU)
    assert {entry.shape for entry in state.values()} == {torch.Size([])}
    state = estimator(Bernoulli(logits), Shifted(), generator=seeded(103), state=state).state
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    first, second = (
        estimator(Bernoulli(logits), Shifted(), generator=seeded(104), state=kept) for kept in (state, loaded)
    )
    assert torch.equal(first.surrogate, second.surrogate)


@pytest.mark.parametrize("decay", [1.0, 1.5, -0.1, math.nan])
def test_impossible_decays(decay):
    with pytest.raises(EstimatorError, match="decay"):
        create("reinforce", {"decay": decay})


@pytest.mark.parametrize("decay", [1.0, 1.5, -0.1, math.nan])
def test_impossible_decays_of_an_image(decay):
    with pytest.raises(EstimatorError, match="image_decay"):
        create("reinforce-per-datum", {"image_decay": decay})
