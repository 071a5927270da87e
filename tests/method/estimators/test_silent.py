import pytest
import torch
from tests.method.reference import expectation, fixed_variance_log_density, gradients, normal, relative

from silent_gradients import ConvolutionalDecoder, FixedVarianceDecoder, Standardization
from silent_gradients.estimators import EstimatorError, create
from silent_gradients.posteriors import FAMILIES

X = normal(3, 5, seed=110)
PARAMETERS = {"bernoulli": normal(3, 6, seed=111, scale=3.0), "gaussian": normal(3, 4, seed=112)}


@pytest.mark.parametrize("name", PARAMETERS)
def test_two_calls_agree_bit_for_bit_and_equal_the_sum_over_all_latents(name):
    decoder = FixedVarianceDecoder({"bernoulli": 6, "gaussian": 2}[name], 5, 0.1).double()
    parameters = PARAMETERS[name].clone().requires_grad_()
    wanted = [parameters, decoder.linear.weight, decoder.linear.bias]
    before = torch.get_rng_state()
    results = []
    for _ in range(2):
        estimate = create("silent")(FAMILIES[name](parameters), decoder.objective(X), state={})
        assert estimate.state == {}
        assert not estimate.value.requires_grad
        results.append([estimate.value, *gradients(estimate.surrogate.sum(), *wanted)])
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    weight, bias = decoder.linear.weight, decoder.linear.bias
    exact = expectation(name, parameters, lambda z: fixed_variance_log_density(z, X, weight, bias, 0.1).sum(-1))
    for found, truth in zip(results[0], [exact, *gradients(exact.sum(), *wanted)], strict=True):
        assert relative(found, truth) < 1e-11


def test_a_nonlinear_decoder_is_refused():
    decoder = ConvolutionalDecoder("plain", 2, (1, 2, 2), (2, 2, 2, 2, 2), Standardization.identity(4, 1000.0))
    q = FAMILIES["bernoulli"](torch.zeros(1, 2))
    with pytest.raises(EstimatorError, match="exact expectation"):
        create("silent")(q, decoder.objective(torch.zeros(1, 4)), state={})
