"""AdamW (Loshchilov and Hutter 2019), fused.

The same numbers as ``torch.optim.AdamW(fused=True)``, bit for bit, without that module: its first use loads torch's
compiler, which takes a training process as long as importing torch itself and a sixth of its memory, and its wrappers
cost a small network a tenth of each step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-8

CLIP_EPSILON = 1e-6
"""As in ``torch.nn.utils.clip_grad_norm_``, whose wrappers take as long again."""


class AdamW:
    """Adam with decoupled weight decay over a fixed list of parameters, all on one device and of one type.

    ``betas`` are the decay rates of the averages of the gradient and of its square, ``gradient_clip`` is the largest
    global norm of these parameters' gradient, None for no clipping.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        gradient_clip: float | None = None,
    ) -> None:
        self.parameters = list(parameters)
        self.rate, self.betas, self.weight_decay = rate, betas, weight_decay
        self._rate_now: float | Tensor = rate
        self.gradient_clip = gradient_clip
        self.averages, self.squares = ([torch.zeros_like(each) for each in self.parameters] for _ in range(2))
        self._counts = torch.zeros(len(self.parameters), device=self.parameters[0].device)
        self.steps = list(self._counts.unbind())

    def scale_rate(self, factor: float) -> None:
        """Multiply the learning rate of the next steps by ``factor``.

        On a GPU the learning rate becomes a tensor, which steps captured since then read.
        """
        rate, device = self.rate * factor, self.parameters[0].device
        if device.type == "cpu":
            self._rate_now = rate
        elif isinstance(self._rate_now, Tensor):
            self._rate_now.fill_(rate)
        else:
            self._rate_now = torch.tensor(rate, device=device)

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters from their gradients and drop the gradients.

        A parameter without a gradient (frozen encoder, skipped guide) does not change: no momentum, no weight decay.
        """
        parameters, averages, squares, steps = self.parameters, self.averages, self.squares, self.steps
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        if len(gradients) < len(parameters):
            moved = [number for number, parameter in enumerate(parameters) if parameter.grad is not None]
            parameters, averages, squares, steps = (
                [each[number] for number in moved] for each in (parameters, averages, squares, steps)
            )
            torch._foreach_add_(steps, 1)
        else:
            self._counts += 1
        if self.gradient_clip is not None:
            norm = torch.stack(torch._foreach_norm(gradients)).norm()
            torch._foreach_mul_(gradients, (self.gradient_clip / (norm + CLIP_EPSILON)).clamp(max=1.0))
        rates: dict[str, Any] = {"lr": self._rate_now, "beta1": self.betas[0], "beta2": self.betas[1]}
        rates |= {"weight_decay": self.weight_decay, "eps": EPSILON, "amsgrad": False, "maximize": False}
        torch._fused_adamw_(parameters, gradients, averages, squares, [], steps, **rates)
        for parameter in parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and step counts."""
        return {"averages": self.averages, "squares": self.squares, "steps": self.steps}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy the content of a ``state_dict``, from any device."""
        for name, own in self.state_dict().items():
            for mine, saved in zip(own, state[name], strict=True):
                mine.copy_(saved)
