"""Two layers with an exact expectation, against the sum over all latents, and against another form of them."""

import math
import subprocess
import sys

import pytest
import torch
from tests.method.families import FAMILIES, LATENTS, family_parameters, with_weights
from tests.method.reference import DOUBLE, expectation, gradients, normal, relative
from torch.distributions import Normal

from silent_gradients import FixedVarianceDecoder, Gaussian, Posterior, ShapeError, TwoLayerDecoder

B, D, R = 3, 4, 5
X = normal(B, D, seed=700)
PARAMETERS = family_parameters(B, seed=701)
EXACT = [(activation, name) for activation in ("square", "cosine") for name in FAMILIES]
EXACT.remove(("square", "categorical"))


def make(activation, family, *, learned=True):
    decoder = TwoLayerDecoder(LATENTS[family], D, R, activation, 0.3, learned_variance=learned)
    # Laguerre's quadrature of fast cosines is coarse.
    scale = 0.15 if (activation, family) == ("cosine", "laplace") else 0.5
    return with_weights(decoder, 702, *([scale] * len(list(decoder.parameters()))))


@pytest.mark.parametrize(("activation", "family"), EXACT)
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_expectations_and_gradients_are_averages_of_the_density(activation, family, noise):
    decoder, parameters = make(activation, family), PARAMETERS[family].clone().requires_grad_()
    objective = decoder.objective(X, noise)
    found = objective.expectation(FAMILIES[family](parameters))
    truth = expectation(family, parameters, lambda z: decoder.likelihood(z).log_prob(X, noise))
    assert objective.is_exact(FAMILIES[family](parameters))
    assert found.shape == (B,)
    assert relative(found, truth) < 1e-11
    wanted, cotangent = [parameters, *decoder.parameters()], normal(B, seed=703)
    for ours, theirs in zip(gradients(found @ cotangent, *wanted), gradients(truth @ cotangent, *wanted), strict=True):
        assert relative(ours, theirs) < 1e-9


@pytest.mark.parametrize(("size", "kept"), [(1, 2**26), (3, 2**26), (3, 0)])
@pytest.mark.parametrize("activation", ["square", "cosine"])
def test_blocks_of_pairs_add_up(activation, size, kept, monkeypatch):
    monkeypatch.setattr("silent_gradients.decoders.two_layer.KEPT_BYTES", kept)
    decoder = make(activation, "gaussian")
    parameters = PARAMETERS["gaussian"].clone().requires_grad_()
    wanted, results = [parameters, *decoder.parameters()], []
    for rows in (R, size):
        monkeypatch.setattr("silent_gradients.decoders.two_layer.chunk_size", lambda *_, rows=rows: rows)
        total = decoder.objective(X).expectation(Gaussian(parameters)) @ normal(B, seed=703)
        results.append([total.detach(), *gradients(total, *wanted)])
    for whole, blocks in zip(*results, strict=True):
        assert relative(blocks, whole) < 1e-12


@pytest.mark.parametrize("activation", ["square", "cosine"])
def test_second_derivatives_are_differences_of_the_first(activation):
    decoder, parameters = make(activation, "gaussian"), PARAMETERS["gaussian"].clone().requires_grad_()
    names, tensors = zip(*decoder.named_parameters(), strict=True)

    class Expectation(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = decoder

        def forward(self, parameters):
            return self.decoder.objective(X).expectation(Gaussian(parameters))

    def values(parameters, *tensors):
        named = {f"decoder.{name}": tensor for name, tensor in zip(names, tensors, strict=True)}
        return torch.func.functional_call(Expectation(), named, (parameters,))

    assert torch.autograd.gradgradcheck(values, (parameters, *tensors), fast_mode=True)


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # torch's own, in forward mode
@pytest.mark.parametrize("activation", ["square", "cosine"])
def test_forward_mode_and_batched_gradients_agree_with_backward_mode(activation):
    objective = make(activation, "gaussian").objective(X)

    def values(parameters):
        return objective.expectation(Gaussian(parameters))

    parameters = PARAMETERS["gaussian"]
    jacobian = torch.autograd.functional.jacobian(values, parameters)
    for other in (torch.func.jacfwd(values)(parameters), torch.func.jacrev(values)(parameters)):
        assert relative(other, jacobian) < 1e-12
    assert relative(torch.autograd.functional.jacobian(values, parameters, vectorize=True), jacobian) < 1e-12


@pytest.mark.parametrize("activation", ["square", "cosine"])
def test_density_matches_torch_distributions(activation):
    decoder, z = make(activation, "gaussian", learned=False), normal(6, B, LATENTS["gaussian"], seed=704)
    inner = z @ decoder.hidden.weight.T + decoder.hidden.bias
    outer = inner**2 if activation == "square" else torch.cos(inner)
    mean = z @ decoder.linear.weight.T + decoder.linear.bias + outer @ decoder.output.weight.T
    exact = Normal(mean, math.sqrt(0.3)).log_prob(X).sum(-1)
    torch.testing.assert_close(decoder.objective(X).sampled(z), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("activation", "family"), EXACT)
def test_without_hidden_weights_it_is_the_linear_decoder(activation, family):
    decoder, linear = make(activation, family, learned=False), FixedVarianceDecoder(LATENTS[family], D, 0.3).double()
    with torch.no_grad():
        decoder.output.weight.zero_()
        linear.linear.load_state_dict(decoder.linear.state_dict())
    q = FAMILIES[family](PARAMETERS[family])
    values = (each.objective(X).expectation(q) for each in (decoder, linear))
    torch.testing.assert_close(*values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("activation", "family"), EXACT)
def test_float32_is_close_to_float64(activation, family):
    high, low = make(activation, family), make(activation, family).float()
    single = PARAMETERS[family].float().requires_grad_()
    double = single.detach().double().requires_grad_()
    high.load_state_dict(low.state_dict())
    found, exact = (
        decoder.objective(X.float().to(leaf.dtype)).expectation(FAMILIES[family](leaf))
        for decoder, leaf in ((low, single), (high, double))
    )
    assert relative(found.double(), exact) < 1e-5
    assert relative(gradients(found.sum(), single)[0].double(), gradients(exact.sum(), double)[0]) < 1e-4


class Unknown(Gaussian):
    """A family that is not normal and does not know its characteristic function."""

    name, is_gaussian, log_characteristic = "unknown", False, Posterior.log_characteristic


@pytest.mark.parametrize(
    ("activation", "kind", "like"),
    [("square", FAMILIES["categorical"], "categorical"), ("cosine", Unknown, "gaussian")],
)
def test_other_families_are_sampled(activation, kind, like):
    objective, q = make(activation, like).objective(X), kind(PARAMETERS[like])
    assert not objective.is_exact(q)
    with pytest.raises(NotImplementedError, match=rf"q: .*{activation}s.*{kind.name}.*sample it"):
        objective.expectation(q)
    assert objective.sampled(q.sample(2)).shape == (2, B)


def test_impossible_arguments_are_named():
    for arguments, error, message in (
        ((2, D, R, "tanh", 0.1), ValueError, r"activation: expected one of \['square', 'cosine'\], got 'tanh'"),
        ((2, D, R, "square", 0.0), ValueError, "variance: expected a positive number, got 0.0"),
        ((2, D, R, "square", 0.1, torch.zeros(3)), ShapeError, r"mean: expected shape \[4\], got \[3\]"),
    ):
        with pytest.raises(error, match=message):
            TwoLayerDecoder(*arguments)
    assert TwoLayerDecoder(2, D, R, "cosine", 0.1).double().log_precision.dtype == DOUBLE


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["square", "cosine"])
def test_memory_is_bounded_by_blocks(activation):
    """A step of 64 images of 784 pixels, 200 latent variables and 256 hidden units, torch itself included."""
    program = (
        "import resource, torch\n"
        "from silent_gradients import Gaussian, TwoLayerDecoder\n"
        f"decoder = TwoLayerDecoder(200, 784, 256, {activation!r}, 0.01, learned_variance=True)\n"
        "q = Gaussian(torch.randn(64, 400, requires_grad=True))\n"
        "decoder.objective(torch.rand(64, 784)).expectation(q).sum().backward()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1.5e6  # KiB
