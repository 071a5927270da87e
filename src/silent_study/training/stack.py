"""Runs of one architecture in one stack: every kernel of a step does the work of all of them.

The step of a single run is mapped over its runs (``torch.vmap``): linear layers become batched matrix products,
convolutions become grouped ones. Small networks gain, since there is more work per kernel and per call; a run of large
ones fills a device by itself. Each run keeps its own optimizers, random streams, schedule, curve and checkpoints.

Neither the number of runs in a stack nor a run's place in it changes its result by more than rounding: a run may go on
in another stack than it began in. On a CPU that holds bit for bit for batches of a multiple of 32 images, since
elementwise functions round otherwise in an incomplete vector, and where oneDNN takes the same kernel for any number of
groups; of few channels on a processor with AVX2 it does not, for a convolution's weight gradient. A lone run is stepped
beside a copy of itself, since a convolution in one group takes another kernel with other rounding.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from silent_gradients.estimators import REGISTRY
from silent_gradients.latent_noise import PreparedNoise, Request
from silent_gradients.vae import VAE
from silent_study.settings import RunSettings
from silent_study.training.grouped import group_convolutions
from silent_study.training.loop import Phase, Trainer, needs, step_sums, take_step


def stackable(settings: RunSettings) -> RunSettings:
    """Settings that are equal for runs which can be stacked: those that only say how long, how fast or from where.

    Rates, schedules and seeds may differ, everything that a step computes may not.
    """
    silent = settings.silent
    if silent is not None:
        silent = dataclasses.replace(
            silent, plateau_epochs=0.0, annealing_rate=1.0, cutoff_epoch=None, mean_rate=0.0, precision_rate=0.0
        )
    return dataclasses.replace(
        settings,
        silent=silent,
        seed=0,
        epochs=0,
        learning_rate=0.0,
        mean_rate=None,
        precision_rate=None,
        weight_decay=0.0,
        gradient_clip=None,
        snapshot_epochs=(),
        threshold_bpd=None,
        cooldown_epochs=0.0,
    )


def mappable(settings: RunSettings, device: torch.device) -> bool:
    """Whether a run's step can be mapped over runs on a device."""
    # Under vmap, batch normalization takes no bfloat16 images with float32 weights, and on a GPU it asks the images for
    # their layout, which PyTorch 2.11 cannot tell it there.
    if settings.network.architecture == "strided" and (settings.precision == "bfloat16" or device.type == "cuda"):
        return False
    return settings.estimator == "none" or REGISTRY[settings.estimator].mappable


def stacks(runs: Sequence[RunSettings], size: int, device: torch.device) -> list[list[RunSettings]]:
    """Runs cut into stacks of at most ``size``, in the order of the first of each.

    Runs whose steps cannot be mapped on the device are stacks of their own.
    """
    alike: dict[str, list[RunSettings]] = {}
    for run in runs:
        alike.setdefault(stackable(run).id if mappable(run, device) else run.id, []).append(run)
    return [group[start : start + size] for group in alike.values() for start in range(0, len(group), size)]


class _TrainingStep(nn.Module):
    """``VAE.training_step`` as a module's forward pass, with tensors in and tensors out."""

    def __init__(self, vae: VAE, phase: Phase, requests: Sequence[Request]) -> None:
        super().__init__()
        self.vae, self.phase, self.requests = vae, phase, requests

    def forward(
        self, x: Tensor, index: Tensor, alpha: Tensor, noise: list[Tensor], state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        step = take_step(self.vae, self.phase, x, index, alpha, PreparedNoise(self.requests, noise), state)
        return step.loss, step_sums(step), step.state


class Joint:
    """Runs in one phase, with their weights in stacked tensors.

    The parameters and buffers of the runs become views of the stacked ones, so that each run's optimizers, checkpoints
    and evaluations see what the stack trains.
    """

    def __init__(self, phase: Phase, members: Sequence[Trainer]) -> None:
        self.phase, self.members = phase, members
        self.rows = list(members) if len(members) > 1 else [members[0], members[0]]
        first = members[0]
        self.requests, self.guided = needs(first, phase)
        step = _TrainingStep(copy.deepcopy(first.vae), phase, self.requests)
        group_convolutions(step)
        self.own = [dict(_TrainingStep(row.vae, phase, ()).named_parameters()) for row in self.rows]
        self.parameters = _stack_and_share(self.own)
        for stacked in self.parameters.values():
            stacked.requires_grad_()
        self.buffers = _stack_and_share([dict(_TrainingStep(row.vae, phase, ()).named_buffers()) for row in self.rows])

        def joint(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Any) -> Any:
            return torch.func.functional_call(step, (parameters, buffers), inputs)

        self.step = torch.vmap(joint)

    def compute(self, index: Tensor, alpha: Tensor | None) -> None:
        """One step of every run, each with the next noise of its own streams; see ``stepper.Work``."""
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
            _side_by_side(images),
            index,
            alpha,
            [torch.stack(each) for each in zip(*noise, strict=True)],
            {name: torch.stack([each[name] for each in states]) for name in states[0]},
        )
        loss.sum().backward()
        for number, trainer in enumerate(members):
            for name, own in self.own[number].items():
                gradient = self.parameters[name].grad
                own.grad = None if gradient is None else gradient[number]
            trainer.update({name: value[number] for name, value in state.items()}, sums[number])
        for stacked in self.parameters.values():
            stacked.grad = None


def _stack_and_share(own: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The runs' tensors of each name, stacked; each run's becomes a view of its row (the first, where it has two)."""
    stacked = {name: _stacked([tensors[name].detach() for tensors in own]) for name in own[0]}
    for number, tensors in reversed(list(enumerate(own))):
        for name, tensor in tensors.items():
            tensor.data = stacked[name][number]
    return stacked


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Weights [N, ...]; those of convolutions with their channels last, as each run's own."""
    if tensors[0].ndim == 4:
        return torch.stack([each.permute(0, 2, 3, 1) for each in tensors]).permute(0, 1, 4, 2, 3)
    return torch.stack(list(tensors))


def _side_by_side(images: Sequence[Tensor]) -> Tensor:
    """Images [N, B, C, H, W] that lie in memory as [B, H, W, N, C]: channels last for a convolution in N groups."""
    return torch.stack([each.permute(0, 2, 3, 1) for each in images], dim=3).permute(3, 0, 4, 1, 2)
