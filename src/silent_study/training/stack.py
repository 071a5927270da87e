"""Stacks: runs of one architecture trained together.

``torch.vmap`` maps the step of a single run over the runs: linear layers become batched matrix products, convolutions
become grouped ones. Small networks gain, since kernels and calls are fewer and larger; a large network fills a device
by itself. Each run keeps its own optimizers, random streams, schedule, curve and checkpoints.

A run's result does not depend on the size of its stack or its place in it, up to rounding, so that a run may resume in
another stack. On a CPU the results are equal bit for bit if batches are a multiple of 32 images (elementwise functions
round differently in an incomplete vector) and oneDNN takes the same kernel for any number of groups (with AVX2 it does
not for a convolution's weight gradient of few channels). A lone run is stepped beside a copy of itself, since a
convolution in one group takes a kernel that rounds differently.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import _functorch

from silent_gradients.estimators import REGISTRY
from silent_gradients.latent_noise import PreparedNoise, Request
from silent_gradients.vae import VAE
from silent_study.settings import RunSettings
from silent_study.training.loop import Phase, Trainer, step_sums, take_step, trial_step


def stack_key(settings: RunSettings) -> RunSettings:
    """Return the settings with all that may differ within a stack set to one value.

    Runs with equal keys can be stacked: they differ in seeds, variances, learning rates, schedules, lengths or
    snapshots alone.
    """
    silent = settings.silent
    if silent is not None:
        silent = dataclasses.replace(
            silent, plateau_epochs=0.0, annealing_rate=1.0, cutoff_epoch=None, mean_rate=0.0, precision_rate=0.0
        )
    free: dict[str, Any] = {"learning_rate": 0.0, "mean_rate": None, "precision_rate": None, "cooldown_epochs": 0.0}
    free |= {"weight_decay": 0.0, "gradient_clip": None, "seed": 0, "epochs": 0}
    free |= {"snapshot_epochs": (), "threshold_bpd": None, "variance": None if settings.variance is None else 1.0}
    return dataclasses.replace(settings, silent=silent, **free)


def mappable(settings: RunSettings, device: torch.device) -> bool:
    """Return True if a run's step can be mapped over runs on a device."""
    # Under vmap, batch normalization fails for bfloat16 images with float32 weights, and on a GPU it reads the images'
    # memory layout, which PyTorch 2.11 does not support there.
    if settings.network.architecture == "strided" and (settings.precision == "bfloat16" or device.type == "cuda"):
        return False
    return settings.estimator == "none" or REGISTRY[settings.estimator].mappable


def cut_into_stacks(runs: Sequence[RunSettings], size: int, device: torch.device) -> list[list[RunSettings]]:
    """Return the runs in stacks of at most ``size``, ordered by the first run of each kind.

    A run whose step cannot be mapped on the device is a stack by itself.
    """
    alike: dict[str, list[RunSettings]] = {}
    for run in runs:
        alike.setdefault(stack_key(run).id if mappable(run, device) else run.id, []).append(run)
    return [group[start : start + size] for group in alike.values() for start in range(0, len(group), size)]


class _TrainingStep(nn.Module):
    """``VAE.training_step`` as the forward pass of a module, from tensors to tensors."""

    def __init__(self, vae: VAE, phase: Phase, requests: Sequence[Request]) -> None:
        super().__init__()
        self.vae, self.phase, self.requests = vae, phase, requests

    def forward(
        self, x: Tensor, index: Tensor, alpha: Tensor, noise: list[Tensor], state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        step = take_step(self.vae, self.phase, x, index, alpha, PreparedNoise(self.requests, noise), state)
        return step.loss, step_sums(step), step.state


class StackedStep:
    """The step of runs in one phase, with their weights in stacked tensors; a ``steps.PhaseStep``.

    The parameters and buffers of the runs become views of the stacked ones, so that each run's optimizers, checkpoints
    and evaluations see what the stack trains.
    """

    def __init__(self, phase: Phase, members: Sequence[Trainer]) -> None:
        self.phase, self.members = phase, members
        self.rows = list(members) if len(members) > 1 else [members[0], members[0]]
        first = members[0]
        self.requests, self.guided = trial_step(first, phase)
        step = _TrainingStep(copy.deepcopy(first.vae), phase, self.requests)
        _group_convolutions(step)
        self.own = [dict(_TrainingStep(row.vae, phase, ()).named_parameters()) for row in self.rows]
        self.parameters = _stack_and_share(self.own)
        for stacked in self.parameters.values():
            stacked.requires_grad_()
        self.buffers = _stack_and_share([dict(_TrainingStep(row.vae, phase, ()).named_buffers()) for row in self.rows])

        def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Any) -> Any:
            return torch.func.functional_call(step, (parameters, buffers), inputs)

        self.step = torch.vmap(call)

    def compute(self, index: Tensor, alpha: Tensor | None) -> None:
        """See ``steps.PhaseStep``; each run draws the next noise of its own streams."""
        members, device = self.members, self.members[0].device
        if alpha is None:
            alpha = torch.zeros(len(members), device=device)
        images = [
            trainer.data.batches.at(own, trainer.generators["dequantization"])
            for trainer, own in zip(members, index, strict=True)
        ]
        noise = [[each.draw(trainer.generators["latent"], device) for each in self.requests] for trainer in members]
        states = [trainer.state for trainer in members]
        if len(members) < len(self.rows):
            images, noise, states = images * 2, noise * 2, states * 2
            index, alpha = index.repeat(2, 1), alpha.repeat(2)
        loss, sums, state = self.step(
            self.parameters,
            self.buffers,
            _images_side_by_side(images),
            index,
            alpha,
            [torch.stack(each) for each in zip(*noise, strict=True)],
            {name: torch.stack([each[name] for each in states]) for name in states[0]},
        )
        loss.sum().backward()
        for name, stacked in self.parameters.items():
            if stacked.grad is not None:
                for own, gradient in zip(self.own[: len(members)], stacked.grad.unbind(), strict=False):
                    own[name].grad = gradient
        for number, trainer in enumerate(members):
            trainer.update({name: value[number] for name, value in state.items()}, sums[number])
        for stacked in self.parameters.values():
            stacked.grad = None


def _stack_and_share(own: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the runs' tensors of each name and make each run's a view of its row (the first, where it has two)."""
    stacked = {name: _stack([tensors[name].detach() for tensors in own]) for name in own[0]}
    for number, tensors in reversed(list(enumerate(own))):
        for name, tensor in tensors.items():
            tensor.data = stacked[name][number]
    return stacked


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack weights to [N, ...]; those of convolutions keep each run's channels-last layout."""
    if tensors[0].ndim == 4:
        return torch.stack([each.permute(0, 2, 3, 1) for each in tensors]).permute(0, 1, 4, 2, 3)
    return torch.stack(list(tensors))


def _images_side_by_side(images: Sequence[Tensor]) -> Tensor:
    """Stack images to [N, B, C, H, W], in memory [B, H, W, N, C]: channels last for a convolution in N groups."""
    return torch.stack([each.permute(0, 2, 3, 1) for each in images], dim=3).permute(3, 0, 4, 1, 2)


# The convolutions of N runs as one convolution in N groups. PyTorch's own rule for vmap adds the bias in a second pass,
# whose gradient is a sum in an order that depends on N; with the bias in the convolution, the step is faster and each
# run's bits do not depend on its neighbours. ``torch.autograd.Function.vmap`` could hold such a rule, but its wrapping
# takes as long as a small convolution; so these layers call the functions that torch.func itself is made of.


class _GroupedConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return _in_groups(F.conv2d, self, x)


class _GroupedConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _in_groups(F.conv_transpose2d, self, x, output_padding=self.output_padding)


def _in_groups(convolve: Callable[..., Tensor], layer: nn.modules.conv._ConvNd, x: Tensor, **options: Any) -> Tensor:
    """Return what N runs' layers make of their images, mapped [B, C, H, W], as one convolution in N groups."""
    images = _unmapped(x, 1)
    groups, bias = images.shape[1], None if layer.bias is None else _unmapped(layer.bias, 0).flatten()
    # The joint images [B, N C, H, W] are a view of channels-last ones.
    joint, weight = images.flatten(1, 2), _unmapped(layer.weight, 0).flatten(0, 1)
    y = convolve(joint, weight, bias, layer.stride, layer.padding, dilation=layer.dilation, groups=groups, **options)
    return _functorch._add_batch_dim(y.unflatten(1, (groups, -1)), 1, _functorch.maybe_get_level(x))


def _unmapped(tensor: Tensor, to: int) -> Tensor:
    """Return the tensor that vmap maps over, with the runs in dimension ``to``."""
    return _functorch.get_unwrapped(tensor).movedim(_functorch.maybe_get_bdim(tensor), to)


def _group_convolutions(network: nn.Module) -> None:
    """Make a network's convolutions grouped ones; it then works under vmap alone, with weights for each run.

    Raises:
        ValueError: A convolution has groups already.
    """
    grouped: dict[type[nn.Module], type[nn.Module]] = {
        nn.Conv2d: _GroupedConv2d,
        nn.ConvTranspose2d: _GroupedConvTranspose2d,
    }
    for name, layer in network.named_modules():
        if type(layer) in grouped:
            if layer.groups != 1:
                raise ValueError(f"{name}: expected a convolution in one group, got {layer}")
            layer.__class__ = grouped[type(layer)]
