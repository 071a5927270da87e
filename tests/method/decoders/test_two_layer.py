"""What is particular to two layers: blocks of pairs, their memory, and families without an expectation."""

import subprocess
import sys

import pytest
import torch
from tests.method.families import FAMILIES, LATENTS, family_parameters, with_weights
from tests.method.reference import gradients, normal, relative

from silent_gradients import FixedVarianceDecoder, Gaussian, Posterior, TwoLayerDecoder

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


@pytest.mark.parametrize(("activation", "family"), EXACT)
def test_without_hidden_weights_it_is_the_linear_decoder(activation, family):
    decoder, linear = make(activation, family, learned=False), FixedVarianceDecoder(LATENTS[family], D, 0.3).double()
    with torch.no_grad():
        decoder.output.weight.zero_()
        linear.linear.load_state_dict(decoder.linear.state_dict())
    q = FAMILIES[family](PARAMETERS[family])
    values = (each.objective(X).expectation(q) for each in (decoder, linear))
    torch.testing.assert_close(*values, rtol=1e-6, atol=1e-6)


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
