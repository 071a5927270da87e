"""Shorter arithmetic where it is asked for, in training alone."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.tiny import train

from silent_gradients import networks
from silent_gradients.networks import Network
from silent_study.training.device import (
    configure_torch,
    convolution_precision,
    peak_megabytes,
    reset_peak,
    resident_megabytes,
)


def trained(place, folder, stacked=False, **changes):
    cell = "learnable/reparameterization+silent"
    runs = [place.settings(cell, seed=seed, batch_size=8, **changes) for seed in (0, 1)]
    made = [place.trainer(run, folder / run.id) for run in runs]
    train(*made, stacked=stacked)
    return made


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("study", ["tiny", "strided"])
def test_bfloat16_trains_nearly_what_float32_does(request, tmp_path, study, stacked):
    place = request.getfixturevalue(study)
    shorts = trained(place, tmp_path / "short", stacked, precision="bfloat16")
    for short, full in zip(shorts, trained(place, tmp_path / "full", stacked), strict=True):
        assert short.curve != full.curve
        for mine, reference in zip(short.curve, full.curve, strict=True):
            assert mine["train_bpd"] == pytest.approx(reference["train_bpd"], abs=0.05)
        assert all(parameter.dtype == torch.float32 for parameter in short.vae.parameters())


def test_evaluation_and_linear_heads_are_float32(strided, tmp_path):
    trainer, _ = trained(strided, tmp_path, precision="bfloat16", epochs=1)
    networks = [module for module in trainer.vae.modules() if isinstance(module, Network)]
    assert len(networks) == 2
    assert all(network.precision == "bfloat16" for network in networks)
    x = trainer.data.selection[:4]
    trainer.vae.eval()
    found = trainer.vae.encoder(x)
    trainer.vae.encoder.precision = "float32"
    assert torch.equal(found, trainer.vae.encoder(x))
    guide = trainer.vae.guide
    assert guide is not None
    assert not any(isinstance(module, Network) for module in guide.modules())


def test_a_network_in_training_uses_the_shorter_type():
    network = Network(torch.nn.Linear(64, 64))
    x = torch.randn(8, 64)
    full = network(x)
    network.precision = "bfloat16"
    short = network(x)
    assert short.dtype == torch.float32
    assert 1e-4 < (short - full).abs().max() < 0.1


class InTF32(torch.nn.Linear):
    def forward(self, x):
        return networks._TF32Product.apply(x, self.weight) + self.bias


def differentiated(network, x):
    """What a network gives, and the gradients of its sum with respect to its input and its weights."""
    x = x.clone().requires_grad_()
    y = network(x)
    y.square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    network.zero_grad()
    return [y.detach(), x.grad, *gradients]


def test_products_in_tf32_are_those_of_linear_layers_where_there_is_none():
    plain = torch.nn.Linear(64, 48)
    through = InTF32(64, 48)
    through.load_state_dict(plain.state_dict())
    x = torch.randn(8, 64)
    for mine, reference in zip(differentiated(through, x), differentiated(plain, x), strict=True):
        assert torch.allclose(mine, reference, rtol=1e-4, atol=1e-4)
    weights, images = torch.randn(3, 48, 64), torch.randn(3, 8, 64)
    mapped = torch.vmap(networks._TF32Product.apply)(images, weights)
    assert torch.allclose(mapped, images @ weights.mT, atol=1e-5)


@pytest.mark.gpu
def test_linear_layers_of_networks_use_tf32_on_a_gpu_and_nothing_else_does():
    configure_torch()
    network = Network(torch.nn.Linear(512, 512)).cuda()
    x = torch.randn(64, 512, device="cuda")
    exact = differentiated(copy.deepcopy(network).double(), x.double())

    def error(found):
        return [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]

    assert max(error(differentiated(network, x))) < 1e-5
    networks.set_precision(network, "tf32")
    y, to_input, to_weight, _ = error(differentiated(network, x))
    assert all(1e-4 < value < 1e-2 for value in (y, to_input, to_weight))
    network.eval()
    assert max(error(differentiated(network, x))) < 1e-5
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("override", ["", "1"])
def test_float32_is_float32_whatever_the_environment_sets(override):
    code = """
import torch
from silent_study.training.device import FLOAT32_BACKENDS, configure_torch
print(torch.backends.cuda.matmul.fp32_precision)
configure_torch()
print({backend.fp32_precision for backend in FLOAT32_BACKENDS}, torch.backends.cuda.matmul.allow_tf32)
"""
    environment = os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": override, "NVIDIA_TF32_OVERRIDE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["tf32" if override else "none", "{'ieee'} False"]
    assert "NVIDIA_TF32_OVERRIDE=0" in done.stderr


@pytest.mark.parametrize("variable", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
def test_float32_is_float32_on_a_cpu_whatever_the_environment_sets(variable, tmp_path):
    code = """
from silent_study.jobs.lease import leased_device
with leased_device():
    import torch
    torch.nn.functional.conv2d(torch.ones(8, 3, 16, 16), torch.ones(8, 3, 3, 3))
"""
    environment = os.environ | {variable: "BF16", "ONEDNN_VERBOSE": "1", "SILENT_GRADIENTS_DEVICES": ""}
    environment["SILENT_GRADIENTS_LEASES"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    (convolution,) = (line for line in done.stdout.splitlines() if ",convolution," in line)
    assert "fpmath" not in convolution


def test_tf32_is_on_inside_alone():
    convolution = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    configure_torch()
    assert convolution.fp32_precision == "ieee"
    with convolution_precision("float32"):
        assert convolution.fp32_precision == "ieee"
    with convolution_precision("tf32"):
        assert convolution.fp32_precision == "tf32"
    assert convolution.fp32_precision == "ieee"
    torch.set_flush_denormal(False)


def test_the_peak_is_what_was_held_at_once():
    reset_peak()
    before = resident_megabytes()
    held = np.ones(25 * 2**20)  # 200 MiB
    assert resident_megabytes() - before > 190
    del held
    assert resident_megabytes() - before < 100
    assert 190 < peak_megabytes() - before < 250
    reset_peak()
    assert peak_megabytes() - before < 100
