"""A training step as a CUDA graph: its hundreds of kernels are launched by one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from silent_study.training.steps import Work

WARM_UP = 3
"""Steps that are made by eager calls before one is captured, in which libraries choose kernels and allocate."""


class Captured:
    """Work whose steps are captured after the first few, forward, backward and optimizers alike.

    Everything that a step reads and writes stays where it is: the inputs are copied into tensors of its own; weights,
    averages, sums and the estimator's state are changed in place; the generators, which the graph knows of, go on by
    themselves. Rates are constants of the graph, where no cooldown changes them.
    """

    def __init__(self, work: Work) -> None:
        self.work, self.members, self.guided = work, work.members, work.guided
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager_steps = 0
        self._index = torch.empty(0)
        self._alpha: Tensor | None = None

    def compute(self, index: Tensor, alpha: Tensor | None) -> None:
        """See ``stepper.Work``."""
        if self._eager_steps == 0:
            self._index = torch.empty_like(index)
            self._alpha = None if alpha is None else torch.empty_like(alpha, device=index.device)
        self._index.copy_(index)
        if self._alpha is not None and alpha is not None:
            self._alpha.copy_(alpha, non_blocking=True)
        if self._eager_steps < WARM_UP:
            self._eager_steps += 1
            side, current = torch.cuda.Stream(index.device), torch.cuda.current_stream(index.device)
            side.wait_stream(current)
            with torch.cuda.stream(side):
                self.work.compute(self._index, self._alpha)
            current.wait_stream(side)
            return
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Capture the step; nothing is computed."""
        graph = torch.cuda.CUDAGraph()
        for trainer in self.members:
            for stream in ("dequantization", "latent"):
                graph.register_generator_state(trainer.generators[stream])
        # A run that has a stream of its own is captured on it: cuBLAS has a workspace for each stream, which graphs
        # captured on one stream and replayed on several would write at the same time.
        current = torch.cuda.current_stream(self._index.device)
        own = None if current == torch.cuda.default_stream(self._index.device) else current
        with torch.cuda.graph(graph, stream=own):
            self.work.compute(self._index, self._alpha)
        return graph
