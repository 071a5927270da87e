import math

import pytest
import torch
from tests.reference import DOUBLE, codes, gradients, normal, seeded

from silent_gradients.estimators import EstimatorError, create
from silent_gradients.posteriors import Bernoulli

B, K = 4, 3
LOGITS = normal(B, K, seed=100)


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
    state, generator = estimator.initial_state(torch.device("cpu")), seeded(101)
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


def enumerated_mean(state, step_objective, decay=0.5):
    """Mean gradient over all joint draws of two images with two bits each, each draw forced on the estimator."""
    estimator = create("reinforce", {"decay": decay})
    logits = LOGITS[:2, :2].clone().requires_grad_()
    total, mass = torch.zeros(2, 2, dtype=DOUBLE), 0.0
    p = torch.sigmoid(logits.detach())
    for joint in codes(4):
        z = joint.reshape(1, 2, 2)
        probability = float(torch.where(z[0] > 0, p, 1 - p).prod())

        class Forced(Bernoulli):
            def sample(self, samples, generator=None, z=z):
                return z

        surrogate = estimator(Forced(logits), step_objective, state=state).surrogate
        total += probability * gradients(surrogate.sum(), logits)[0]
        mass += probability
    assert mass == pytest.approx(1)
    return total, p


class Product:
    """z_1 z_2 + 3 z_1 for each image: its mean's gradient is known by hand."""

    def sampled(self, z):
        return z[..., 0] * z[..., 1] + 3 * z[..., 0]


@pytest.mark.parametrize("started", [False, True])
def test_exactly_unbiased_over_all_joint_draws(started):
    """Batch-mates and past steps are independent of a sample; its own value in the baseline would shrink the mean."""
    state = {"average": torch.tensor(2.0), "weight": torch.tensor(0.5)}
    if not started:
        state = create("reinforce").initial_state(torch.device("cpu"))
    found, p = enumerated_mean(state, Product())
    v = p * (1 - p)
    exact = torch.stack([v[:, 0] * (p[:, 1] + 3), v[:, 1] * p[:, 0]], dim=1)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


def test_the_baseline_takes_a_constant_out():
    """After many steps on a constant objective the score has no weight left."""
    estimator = create("reinforce", {"decay": 0.5})
    logits = LOGITS.clone().requires_grad_()

    class Constant:
        def sampled(self, z):
            return torch.full(z.shape[:2], -1234.5, dtype=z.dtype)

    state, generator = estimator.initial_state(torch.device("cpu")), seeded(102)
    for _ in range(5):
        _, surrogate, state = estimator(Bernoulli(logits), Constant(), generator=generator, state=state)
        assert gradients(surrogate.sum(), logits)[0].abs().max() < 1e-3


def test_state_survives_a_checkpoint(tmp_path):
    estimator = create("reinforce")
    logits = LOGITS.clone().requires_grad_()
    state = estimator.initial_state(torch.device("cpu"))
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
