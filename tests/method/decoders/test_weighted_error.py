"""The weighted error's backward pass by hand against automatic differentiation of the formula."""

import pytest
import torch
from tests.method.families import FAMILIES, LATENTS, family_parameters
from tests.method.reference import normal
from torch import Tensor

from silent_gradients.decoders.weighted_error import _from_cumulants, weighted_error

B, D = 3, 5
PARAMETERS = family_parameters(B, seed=61)
INDEPENDENT = [name for name in PARAMETERS if FAMILIES[name].has_independent_coordinates]


def inputs(name, seed=62):
    """The family's parameters, x, the noise, A, a, B and c."""
    k = LATENTS[name]
    shapes = ((B, D), (D,), (D, k), (D,), (D, k), (D,))
    return PARAMETERS[name], *(normal(*shape, seed=seed + n) for n, shape in enumerate(shapes))


def hand(name):
    return lambda parameters, *rest: weighted_error(FAMILIES[name](parameters), *rest)


def formula(name):
    def value(parameters, x, noise, weight_m, bias_m, weight_s, bias_s):
        joint = FAMILIES[name](parameters).joint_cumulants(weight_m, weight_s)
        return _from_cumulants(joint, x, noise, bias_m, bias_s)

    return value


def total(value):
    """A scalar in which every entry of every output has a weight of its own."""
    weights = normal(B, seed=70), normal(B, D, seed=71), normal(B, D, seed=72)

    def scalar(*arguments):
        return sum((part * weight).square().sum() for part, weight in zip(value(*arguments), weights, strict=True))

    return scalar


def close(found, wanted):
    """Equal to twelve digits of the largest entry."""
    for ours, theirs in zip(found, wanted, strict=True):
        scale = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_values_and_derivatives_of_first_and_second_order(name):
    found: list[Tensor] = []
    wanted: list[Tensor] = []
    for value, into in ((hand(name), found), (formula(name), wanted)):
        leaves = [each.clone().requires_grad_() for each in inputs(name)]
        outputs = value(*leaves)
        scalar = total(lambda *_, outputs=outputs: outputs)()
        first = torch.autograd.grad(scalar, leaves, retain_graph=True)
        twice = torch.autograd.grad(scalar, leaves, create_graph=True)
        second = torch.autograd.grad(torch.cat([each.flatten() for each in twice]).square().sum(), leaves)
        into += [*outputs, *first, *twice, *second]
    close(found, wanted)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_one_output_alone(name):
    for output in range(3):
        gradients = []
        for value in (hand(name), formula(name)):
            leaves = [each.clone().requires_grad_() for each in inputs(name)]
            gradients.append(torch.autograd.grad(value(*leaves)[output].square().sum(), leaves, materialize_grads=True))
        close(*gradients)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_a_stack_of_runs_has_the_gradients_of_each(name):
    runs = [inputs(name, seed) for seed in (80, 90)]
    stacked = [torch.stack(each).requires_grad_() for each in zip(*runs, strict=True)]
    found = torch.autograd.grad(torch.vmap(total(hand(name)))(*stacked).sum(), stacked)
    for number, run in enumerate(runs):
        leaves = [each.clone().requires_grad_() for each in run]
        close([each[number] for each in found], list(torch.autograd.grad(total(formula(name))(*leaves), leaves)))


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # torch's own, in forward mode
@pytest.mark.parametrize("name", INDEPENDENT)
@pytest.mark.parametrize("argument", [0, 3])
def test_transforms_of_functions(name, argument):
    arguments = inputs(name)
    for transform in (torch.func.grad, torch.func.hessian, torch.func.jacfwd, torch.func.jacrev):
        found, wanted = (transform(total(value(name)), argument)(*arguments) for value in (hand, formula))
        close([found], [wanted])
    rows = torch.vmap(torch.func.grad(total(hand(name)), argument), (0, *[None] * 6))
    both = torch.stack([arguments[0], arguments[0] + 0.1])
    close([rows(both, *arguments[1:])[0]], [torch.func.grad(total(formula(name)), argument)(*arguments)])
