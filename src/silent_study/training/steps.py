"""Training steps: single, stacked or on streams; eager or CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from silent_study.training.device import convolution_precision
from silent_study.training.loop import Phase, Trainer, trial_step
from silent_study.training.stack import StackedStep, mappable

WARM_UP = 3
"""Eager steps before a step is captured, in which libraries choose kernels and allocate memory."""


class PhaseStep(Protocol):
    """The training step of some runs in one phase; ``guided`` if it uses the guide."""

    members: Sequence[Trainer]
    guided: bool

    def compute(self, index: Tensor, alpha: Tensor | None) -> None:
        """Update the runs' weights, without waiting for the device and without reading values on the host.

        ``index`` [N, B] has the positions of the runs' images in the training set, ``alpha`` [N] the weights of the
        silent gradients; None where the phase is not mixed.
        """


class SingleStep:
    """The step of one run by itself."""

    def __init__(self, phase: Phase, members: Sequence[Trainer]) -> None:
        self.phase, self.members = phase, members
        _, self.guided = trial_step(members[0], phase)

    def compute(self, index: Tensor, alpha: Tensor | None) -> None:
        """See ``PhaseStep``."""
        (trainer,) = self.members
        trainer.compute(self.phase, index[0], 0.0 if alpha is None else alpha[0])


class CapturedStep:
    """A step captured as a CUDA graph (forward, backward and optimizers) after its first ``WARM_UP`` eager calls.

    One call then launches its hundreds of kernels. All tensors of a step stay in place: inputs are copied into fixed
    tensors; weights, averages, sums and the estimator's state are updated in place; the graph advances the registered
    generators. Learning rates are constants of the graph, except under a cooldown.
    """

    def __init__(self, eager: PhaseStep) -> None:
        self.eager, self.members, self.guided = eager, eager.members, eager.guided
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager_calls = 0
        self._index = torch.empty(0)
        self._alpha: Tensor | None = None

    def compute(self, index: Tensor, alpha: Tensor | None) -> None:
        """See ``PhaseStep``."""
        if self._eager_calls == 0:
            self._index = torch.empty_like(index)
            self._alpha = None if alpha is None else torch.empty_like(alpha, device=index.device)
        self._index.copy_(index)
        if self._alpha is not None and alpha is not None:
            self._alpha.copy_(alpha, non_blocking=True)
        if self._eager_calls < WARM_UP:
            self._eager_calls += 1
            side, current = torch.cuda.Stream(index.device), torch.cuda.current_stream(index.device)
            side.wait_stream(current)
            with torch.cuda.stream(side):
                self.eager.compute(self._index, self._alpha)
            current.wait_stream(side)
            return
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for trainer in self.members:
            for stream in ("dequantization", "latent"):
                graph.register_generator_state(trainer.generators[stream])
        # A run with its own stream is captured on it: cuBLAS has one workspace per stream, which graphs captured on one
        # stream and replayed on several would write at the same time.
        current = torch.cuda.current_stream(self._index.device)
        own = None if current == torch.cuda.default_stream(self._index.device) else current
        with torch.cuda.graph(graph, stream=own):
            self.eager.compute(self._index, self._alpha)
        return graph


class Stepper:
    """Makes the steps of runs.

    Args:
        stacked: Stack the runs that are in the same phase; all must be equal in ``stack.stack_key``.
        captured: Capture steps as CUDA graphs, a graph for each phase.
        streams: Give each run its own CUDA stream, on which it does not wait for the others. The runs may differ in
            every setting.

    Raises:
        ValueError: Both ``stacked`` and ``streams`` are True.
    """

    def __init__(self, *, stacked: bool = False, captured: bool = False, streams: bool = False) -> None:
        if stacked and streams:
            raise ValueError("expected runs in a stack or on streams of their own, found both")
        self.stacked, self.captured, self.streams = stacked, captured, streams
        self._steps: dict[tuple[Phase, tuple[int, ...]], PhaseStep] = {}
        self._streams: dict[int, torch.cuda.Stream] = {}

    def advance(self, trainers: Sequence[Trainer]) -> None:
        """Make one step of every run."""
        if not self.streams:
            self._advance(trainers)
            return
        for trainer in trainers:
            # All work of the run is in its stream, also the evaluation at the end of an epoch.
            current = torch.cuda.current_stream(trainer.device)
            if id(trainer) not in self._streams:
                self._streams[id(trainer)] = torch.cuda.Stream(trainer.device)
                self._streams[id(trainer)].wait_stream(current)  # in which its weights were made
            with torch.cuda.stream(self._streams[id(trainer)]):
                self._advance([trainer])
            current.wait_stream(self._streams[id(trainer)])  # checkpoints and results are made outside

    def _advance(self, trainers: Sequence[Trainer]) -> None:
        groups: dict[Phase, list[Trainer]] = {}
        for trainer in trainers:
            groups.setdefault(trainer.begin_step(), []).append(trainer)
        stacked = self._stacks(trainers)
        parts = {
            (phase, tuple(map(id, part))): part
            for phase, group in groups.items()
            for part in ([group] if stacked else [[trainer] for trainer in group])
        }
        if stacked and parts.keys() != self._steps.keys():
            self._steps.clear()  # a run's weights are in one stack at a time
        for key, part in parts.items():
            phase, _ = key
            if key not in self._steps:
                self._steps[key] = self.step_of(phase, part)
            self._take(self._steps[key], phase)

    def _stacks(self, trainers: Sequence[Trainer]) -> bool:
        return self.stacked and mappable(trainers[0].settings, trainers[0].device)

    def step_of(self, phase: Phase, members: Sequence[Trainer]) -> PhaseStep:
        """Return the step of some runs in a phase; of one run alone where runs are not stacked."""
        eager: PhaseStep = StackedStep(phase, members) if self._stacks(members) else SingleStep(phase, members)
        return CapturedStep(eager) if self.captured else eager

    def _take(self, step: PhaseStep, phase: Phase) -> None:
        indices = [trainer.next_index() for trainer in step.members]
        # Every call to the device takes the host longer than a small kernel takes the device.
        index = torch.stack(indices) if len(indices) > 1 else indices[0][None]
        alpha = None
        if phase.guided == "mixed":
            alphas = torch.tensor([trainer.alpha for trainer in step.members])
            alpha = alphas.to(index.device, non_blocking=True)
        with convolution_precision(step.members[0].settings.precision):
            step.compute(index, alpha)
        for trainer in step.members:
            trainer.end_step(index.shape[1], guided=step.guided)
