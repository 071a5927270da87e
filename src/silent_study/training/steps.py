"""Steps of many runs: alone, in stacks or on streams, as eager calls or as captured CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from silent_study.training.capture import Captured
from silent_study.training.device import convolutions
from silent_study.training.loop import Phase, Trainer, needs
from silent_study.training.stack import Joint, mappable


class Work(Protocol):
    """A step of some runs in one phase.

    Attributes:
        members: The runs.
        guided: Whether the step uses the guide.
    """

    members: Sequence[Trainer]
    guided: bool

    def compute(self, index: Tensor, alpha: Tensor | None) -> None:
        """The step; nothing here waits for the device or depends on what is on the host.

        Args:
            index: [N, B], positions of the images in the training set, for every run.
            alpha: [N], weights of the silent gradients; None where the phase is not mixed.
        """


class Alone:
    """The step of one run by itself."""

    def __init__(self, phase: Phase, members: Sequence[Trainer]) -> None:
        self.phase, self.members = phase, members
        _, self.guided = needs(members[0], phase)

    def compute(self, index: Tensor, alpha: Tensor | None) -> None:
        """See ``Work``."""
        (trainer,) = self.members
        trainer.compute(self.phase, index[0], 0.0 if alpha is None else alpha[0])


class Stepper:
    """Makes steps of runs.

    Args:
        stacked: Runs in the same phase make their steps together; all can be stacked (see ``stack.stackable``).
        captured: Steps are captured as CUDA graphs, a graph for each phase.
        streams: Each run has a CUDA stream of its own, on which it goes on without waiting for the others. They may be
            of any kind.

    Raises:
        ValueError: Runs are asked for in a stack and on streams.
    """

    def __init__(self, *, stacked: bool, captured: bool = False, streams: bool = False) -> None:
        if stacked and streams:
            raise ValueError("expected runs in a stack or on streams of their own, found both")
        self.stacked, self.captured, self.streams = stacked, captured, streams
        self._works: dict[tuple[Phase, tuple[int, ...]], Work] = {}
        self._streams: dict[int, torch.cuda.Stream] = {}

    def advance(self, trainers: Sequence[Trainer]) -> None:
        """One step of every run."""
        if not self.streams:
            self._advance(trainers)
            return
        for trainer in trainers:
            # Whatever the run does, an evaluation at an epoch's end included, is done in its own stream.
            current = torch.cuda.current_stream(trainer.device)
            stream = self._stream(trainer, current)
            with torch.cuda.stream(stream):
                self._advance([trainer])
            current.wait_stream(stream)  # checkpoints and results are made outside

    def _stream(self, trainer: Trainer, current: torch.cuda.Stream) -> torch.cuda.Stream:
        stream = self._streams.get(id(trainer))
        if stream is None:
            stream = self._streams[id(trainer)] = torch.cuda.Stream(trainer.device)
            stream.wait_stream(current)  # in which its weights were made
        return stream

    def _advance(self, trainers: Sequence[Trainer]) -> None:
        groups: dict[Phase, list[Trainer]] = {}
        for trainer in trainers:
            groups.setdefault(trainer.begin_step(), []).append(trainer)
        stacked = self.stacked and mappable(trainers[0].settings, trainers[0].device)
        parts = [
            (phase, tuple(part))
            for phase, group in groups.items()
            for part in ([group] if stacked else [[trainer] for trainer in group])
        ]
        keys = [(phase, tuple(map(id, part))) for phase, part in parts]
        if stacked and set(keys) != set(self._works):
            self._works.clear()  # a run's weights lie in one stack
        for key, (phase, part) in zip(keys, parts, strict=True):
            if key not in self._works:
                self._works[key] = self.work(phase, part)
            self._step(self._works[key], phase)

    def work(self, phase: Phase, members: Sequence[Trainer]) -> Work:
        """The work of some runs in a phase, of one run where runs are not stacked."""
        stacked = self.stacked and mappable(members[0].settings, members[0].device)
        made: Work = Joint(phase, members) if stacked else Alone(phase, members)
        return Captured(made) if self.captured else made

    def _step(self, work: Work, phase: Phase) -> None:
        indices = [trainer.next_index() for trainer in work.members]
        # Every call to the device takes the host longer than a small kernel takes the device.
        index = torch.stack(indices) if len(indices) > 1 else indices[0][None]
        alpha = None
        if phase.guided == "mixed":
            alphas = torch.tensor([trainer.alpha for trainer in work.members])
            alpha = alphas.to(index.device, non_blocking=True)
        with convolutions(work.members[0].settings.precision):
            work.compute(index, alpha)
        for trainer in work.members:
            trainer.count(index.shape[1], work.guided)
            trainer.end_step()
