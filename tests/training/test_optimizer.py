"""AdamW against torch.optim's, bit for bit."""

import copy

import pytest
import torch

from silent_study.training.optimizer import AdamW

BETAS, DECAY, RATE = (0.9, 0.99), 0.05, 3e-3


def train(model, step, rounds=25):
    source = torch.Generator().manual_seed(1)
    for _ in range(rounds):
        model(torch.randn(16, 5, generator=source)).square().sum().backward()
        step()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))


@pytest.mark.parametrize(("clip", "cooldown"), [(None, False), (0.5, False), (None, True)])
def test_equals_torch_optim_bit_for_bit(model, clip, cooldown):
    other = copy.deepcopy(model)
    ours = AdamW(model.parameters(), RATE, BETAS, DECAY, clip)
    theirs = torch.optim.AdamW(other.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True)
    factors = [1.0] * 10 + [1 - number / 15 if cooldown else 1.0 for number in range(16)]
    scheduler = torch.optim.lr_scheduler.LambdaLR(theirs, factors.__getitem__)
    left = iter(factors)

    def our_step():
        if cooldown:
            ours.scale_rate(next(left))
        ours.step()

    def their_step():
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(other.parameters(), clip)
        theirs.step()
        theirs.zero_grad()
        scheduler.step()

    train(model, our_step)
    train(other, their_step)
    for mine, reference in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, reference)


def test_parameter_without_gradient_is_left_alone(model):
    optimizer = AdamW(model.parameters(), RATE, BETAS, DECAY)
    train(model, optimizer.step, rounds=3)
    first = [parameter.clone() for parameter in model[0].parameters()]
    last = [parameter.clone() for parameter in model[2].parameters()]
    model[0].requires_grad_(False)
    train(model, optimizer.step, rounds=3)
    assert all(torch.equal(old, new) for old, new in zip(first, model[0].parameters(), strict=True))
    assert not any(torch.equal(old, new) for old, new in zip(last, model[2].parameters(), strict=True))


def test_a_step_drops_the_gradients(model):
    optimizer = AdamW(model.parameters(), RATE, BETAS, DECAY)
    train(model, optimizer.step, rounds=1)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_state_goes_on_bit_for_bit(model):
    undisturbed = copy.deepcopy(model)
    whole = AdamW(undisturbed.parameters(), RATE, BETAS, DECAY)
    train(undisturbed, whole.step, rounds=5)
    train(undisturbed, whole.step, rounds=5)

    before = AdamW(model.parameters(), RATE, BETAS, DECAY)
    train(model, before.step, rounds=5)
    after = AdamW(model.parameters(), RATE, BETAS, DECAY)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    train(model, after.step, rounds=5)
    for mine, reference in zip(model.parameters(), undisturbed.parameters(), strict=True):
        assert torch.equal(mine, reference)
