"""The training loop of one run: Algorithm 1 of the paper, with checkpoints that resume bit for bit."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from silent_gradients.estimators.contract import State
from silent_gradients.evaluation.metrics import bits_per_dimension, evaluate, evaluation_mode, finite_or_null
from silent_gradients.latent_noise import NoiseSource, RecordedNoise, Request
from silent_gradients.schedules import SilentSchedule, rate_factor
from silent_gradients.vae import VAE, Step
from silent_study.data.batches import RunData
from silent_study.settings import FLATTENED_TOLERANCE, RunSettings
from silent_study.store.documents import CurveEntry, Metrics, Progress, Result
from silent_study.store.runs import CURVE, PROGRESS, snapshot_file
from silent_study.training import checkpoint
from silent_study.training.build import build_optimizers, build_vae
from silent_study.training.device import convolutions
from silent_study.training.seeds import Purpose, generator
from silent_study.training.speed import Speed

LARGEST_SHARE_OF_CHECKPOINTS = 0.01
"""Checkpoints that take long are as rare as it takes for them to cost no more of a training than this."""

LONG_CHECKPOINT = 0.1
"""Seconds from which on a checkpoint takes long; quicker ones are saved as often as is asked for."""

PROGRESS_SECONDS = 2.0
"""A run in training says as often in its folder how far it is."""

STREAMS: tuple[Purpose, ...] = ("order", "dequantization", "latent")


class Interrupted(Exception):
    """Training was asked to stop; its checkpoint is saved."""


@dataclass
class _Sums:
    """Sums over an epoch that stay on the device until it ends.

    Attributes:
        totals: [4], of the loss, E_q log p(x|z), the KL and the guide's E_q log p(x|z), float64.
        images: Number of images; the loss is a mean over a batch and counts once per step.
        guided_images: Those with a guide.
    """

    totals: Tensor
    images: int = 0
    guided_images: int = 0

    @classmethod
    def zeros(cls, device: torch.device) -> _Sums:
        return cls(torch.zeros(4, device=device, dtype=torch.float64))

    def reset(self) -> None:
        self.totals.zero_()
        self.images = self.guided_images = 0


class Phase(NamedTuple):
    """What a step does, beside the numbers that it does it with.

    Attributes:
        guided: ``no`` guide, the guide ``alone`` trains the encoder, or it is ``mixed`` with the estimator.
        frozen: Whether the encoder is frozen.
    """

    guided: Literal["no", "alone", "mixed"]
    frozen: bool


def take_step(
    vae: VAE,
    phase: Phase,
    x: Tensor,
    index: Tensor,
    alpha: float | Tensor,
    noise: NoiseSource,
    state: State,
) -> Step:
    """``VAE.training_step`` in a phase; ``alpha`` counts where it is mixed."""
    weight: dict[str, float | Tensor] = {"no": 0.0, "alone": 1.0, "mixed": alpha}
    return vae.training_step(
        x, state=state, alpha=weight[phase.guided], frozen=phase.frozen, index=index, generator=noise
    )


def step_sums(step: Step) -> Tensor:
    """What a step adds to the totals of its epoch, [4] (see ``_Sums``), float64."""
    guide = step.guide_log_likelihood
    parts = (
        step.loss.detach(),
        step.log_likelihood.sum(),
        step.kl.sum(),
        step.kl.new_zeros(()) if guide is None else guide.sum(),
    )
    return torch.stack([part.double() for part in parts])


@dataclass
class Trainer:
    """One run in training.

    Args:
        settings: The run.
        data: Its data, on the device.
        folder: Where curve, checkpoints and snapshots go; made if missing.
        device: Device that trains.
        checkpoint_seconds: Wall time between checkpoints.
        stop: Asked after every step; True saves a checkpoint and raises ``Interrupted``.
        report: Shown the run when it begins, its curve restored, and after every epoch.

    Attributes:
        epoch: Epochs done.
        step: Steps done in the epoch after these.
        alpha: Weight of the silent gradient in the last step that was begun.
        seconds: Time spent on the run; runs that are trained together share it evenly.
        speed: How fast it is being trained; runs that are trained together each have their own.
    """

    settings: RunSettings
    data: RunData
    folder: Path
    device: torch.device
    checkpoint_seconds: float = 30.0
    stop: Callable[[], bool] = lambda: False
    report: Callable[[Trainer], None] = lambda _trainer: None
    epoch: int = 0
    step: int = 0
    alpha: float = 0.0
    diverged_epoch: int | None = None
    seconds: float = 0.0
    curve: list[CurveEntry] = field(default_factory=list)
    speed: Speed = field(default_factory=Speed)

    def __post_init__(self) -> None:
        settings = self.settings
        self.vae = build_vae(settings, self.data.mean, self.data.deviation).to(self.device)
        self.optimizers = build_optimizers(settings, self.vae)
        self.schedule = SilentSchedule.of(settings.silent)
        self.generators = {stream: generator(settings.seed, stream, self.device) for stream in STREAMS}
        self.state = self.vae.initial_state(self.device, len(self.data.batches))
        self.sums = _Sums.zeros(self.device)
        self.order = self.generators["order"].get_state()
        self.permutation: Tensor | None = None
        self.steps = self.data.batches.number_of_batches(settings.batch_size)
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> Result:
        """Train to the end (from the newest checkpoint, if there is one) and return the run's result.

        Raises:
            Interrupted: ``stop`` said so.
        """
        train([self], one_by_one, self.checkpoint_seconds, self.stop)
        return self.result()

    def begin(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        saved = checkpoint.newest(self.folder)
        if saved is not None:
            self._restore(saved)
        (self.folder / CURVE).write_text("".join(_line(entry) for entry in self.curve))
        self.tell(time.monotonic())
        self.report(self)

    def tell(self, now: float) -> None:
        """Write how far the run is for whoever watches; ``now`` is the time in seconds, of any clock."""
        done = self.epoch * self.steps + self.step
        self.speed.mark(now, done * self.settings.batch_size)
        document: Progress = {
            "epoch": self.epoch,
            "share": done / (self.settings.epochs * self.steps),
            "images_per_second": self.speed.images_per_second,
            "seconds_left": self.seconds_left,
            "seconds": self.seconds,
        }
        # Whole or not there, but nobody needs it after a power cut: waiting for the disk would cost more than it tells.
        written = self.folder / f".{PROGRESS}.tmp"
        written.write_text(json.dumps(document))
        written.replace(self.folder / PROGRESS)

    @property
    def seconds_left(self) -> float | None:
        """Wall time to the end at the present speed; None before it is known."""
        speed = self.speed.images_per_second
        steps = self.settings.epochs * self.steps - self.epoch * self.steps - self.step
        return steps * self.settings.batch_size / speed if speed else None

    @property
    def done(self) -> bool:
        """Whether no step is left."""
        return self.epoch >= self.settings.epochs or self.diverged_epoch is not None

    def begin_step(self) -> Phase:
        """Make ready for the next step and say what it does; ``alpha`` is its weight."""
        schedule = self.schedule
        frozen = schedule is not None and schedule.frozen(self.epoch)
        if self.permutation is None:
            self.vae.train()
            if frozen:
                self.vae.encoder.eval()
            order = self.generators["order"]
            if self.step == 0:
                self.sums.reset()
                self.order = order.get_state()
            else:  # the interrupted epoch's order, once more
                order.set_state(self.order)
            self.permutation = self.data.batches.order(order)
        epochs_done = self.epoch + self.step / self.steps
        self.alpha = 0.0 if schedule is None else schedule.weight(epochs_done)
        if cooldown := self.settings.cooldown_epochs:
            factor = rate_factor(self.settings.epochs - epochs_done, cooldown)
            for optimizer in self.optimizers.values():
                optimizer.scale_rate(factor)
        if frozen or self.alpha == 0:
            return Phase("no", frozen)
        return Phase("alone" if self.alpha == 1 else "mixed", frozen)

    def next_index(self) -> Tensor:
        """Positions of the images of the step that was begun in the training set, [B]."""
        assert self.permutation is not None, "begin_step comes first"
        size = self.settings.batch_size
        return self.permutation[self.step * size : (self.step + 1) * size]

    def advance(self) -> None:
        """One step; the last of an epoch evaluates where that is due and adds to the curve."""
        phase, index = self.begin_step(), self.next_index()
        with convolutions(self.settings.precision):
            guided = self.compute(phase, index, self.alpha)
        self.count(len(index), guided)
        self.end_step()

    def train_epoch(self) -> None:
        """The steps of an epoch, or the rest of one that was interrupted."""
        epoch = self.epoch
        while self.epoch == epoch:
            self.advance()

    def compute(self, phase: Phase, index: Tensor, alpha: float | Tensor) -> bool:
        """The passes and the update of a step; nothing here waits for the device.

        Args:
            phase: What the step does.
            index: [B], positions of its images in the training set.
            alpha: Weight of the silent gradient; it counts in a mixed phase.

        Returns:
            Whether the step used the guide.
        """
        x = self.data.batches.at(index, self.generators["dequantization"])
        step = take_step(self.vae, phase, x, index, alpha, self.generators["latent"], self.state)
        step.loss.backward()
        self.update(step.state, step_sums(step))
        return step.guide_log_likelihood is not None

    def update(self, state: State, sums: Tensor) -> None:
        """Let the optimizers follow the gradients, and keep what a step gave in the tensors that are there.

        Args:
            state: The estimator's state.
            sums: See ``step_sums``.
        """
        for optimizer in self.optimizers.values():
            optimizer.step()
        for name, value in state.items():
            self.state[name].copy_(value)
        self.sums.totals += sums

    def count(self, images: int, guided: bool) -> None:
        """Count the images of a step, and whether it used the guide."""
        self.sums.images += images
        self.sums.guided_images += images if guided else 0

    def end_step(self) -> None:
        """Count a step; after the last of an epoch, evaluate where that is due and add to the curve."""
        self.step += 1
        if self.step < self.steps:
            return
        self.permutation, self.step = None, 0
        self.epoch += 1
        frozen = self.schedule is not None and self.schedule.frozen(self.epoch - 1)
        self.curve.append(self._curve_entry(self.sums, 0.0 if frozen else self.alpha, frozen))
        with (self.folder / CURVE).open("a") as file:
            file.write(_line(self.curve[-1]))
        if self.diverged_epoch is None and self.epoch in self.settings.snapshot_epochs:
            torch.save(self.snapshot(), self.folder / snapshot_file(self.epoch))
        self.report(self)

    def save(self) -> None:
        """Save a checkpoint."""
        checkpoint.save(self.folder, self._state())

    def _curve_entry(self, sums: _Sums, alpha: float, frozen: bool) -> CurveEntry:
        settings = self.settings
        dimensions, levels = settings.data.dimensions, settings.data.levels
        loss, log_likelihood, kl, guide = sums.totals.tolist()
        entry: dict[str, Any] = {
            "epoch": self.epoch,
            "alpha": alpha,
            "frozen": frozen,
            "train_bpd": bits_per_dimension((log_likelihood - kl) / sums.images, dimensions, levels),
            "train_kl": kl / sums.images,
            "guide_bpd": None,
            "selection_bpd": None,
            "selection_kl": None,
        }
        if sums.guided_images:
            entry["guide_bpd"] = bits_per_dimension((guide - kl) / sums.guided_images, dimensions, levels)
        if not all(map(math.isfinite, (loss, log_likelihood, kl, guide))):
            self.diverged_epoch = self.epoch
        elif self.epoch % settings.evaluate_every == 0 or self.epoch == settings.epochs:
            metrics = self._evaluate_selection()
            entry |= {"selection_bpd": metrics["bpd"], "selection_kl": metrics["kl"]}
            if metrics["bpd"] is None:
                self.diverged_epoch = self.epoch
        return cast("CurveEntry", finite_or_null(entry))

    def _evaluate_selection(self) -> Metrics:
        # The same latent samples in every evaluation: curves of one run differ by its weights alone.
        settings, data = self.settings, self.data
        latent = generator(0, "evaluation", self.device)
        found = evaluate(
            self.vae, data.selection, settings.data.levels, data.selection_name, settings.evaluation_samples, latent
        )
        return cast("Metrics", found.to_json())

    def snapshot(self) -> dict[str, Any]:
        """Weights and estimator state: what an evaluation needs of a moment in training."""
        return {"vae": self.vae.state_dict(), "state": self.state}

    def _state(self) -> dict[str, Any]:
        return self.snapshot() | {
            "run": self.settings.id,
            "epoch": self.epoch,
            "step": self.step,
            "sums": asdict(self.sums),
            "order": self.order,
            "seconds": self.seconds,
            "curve": json.dumps(self.curve),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "generators": {stream: source.get_state() for stream, source in self.generators.items()},
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        if saved["run"] != self.settings.id:
            raise checkpoint.CheckpointError(
                f"{self.folder}: its checkpoint is of run {saved['run']}, not {self.settings.id}; remove the folder"
            )
        self.vae.load_state_dict(saved["vae"])
        self.state = {name: value.to(self.device) for name, value in saved["state"].items()}
        self.epoch, self.step, self.order = saved["epoch"], saved["step"], saved["order"]
        self.sums = _Sums(**saved["sums"])
        self.sums.totals = self.sums.totals.to(self.device)
        self.seconds, self.curve = saved["seconds"], json.loads(saved["curve"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
        for stream, source in self.generators.items():
            source.set_state(saved["generators"][stream])

    def result(self) -> Result:
        """The result of a run that is done, with its last evaluation."""
        settings = self.settings
        return {
            "status": "finished" if self.diverged_epoch is None else "diverged",
            "diverged_epoch": self.diverged_epoch,
            "epochs": self.epoch,
            "selection": self._evaluate_selection() if self.diverged_epoch is None else None,
            "flattened": flattened(self.curve),
            "threshold_bpd": settings.threshold_bpd,
            "epochs_to_threshold": epochs_to(self.curve, settings.threshold_bpd),
        }


def needs(trainer: Trainer, phase: Phase) -> tuple[list[Request], bool]:
    """The noise that a step of a run asks for, and whether it uses the guide."""
    recorded = RecordedNoise()
    batches, size = trainer.data.batches, trainer.settings.batch_size
    index = torch.arange(min(size, len(batches)), device=trainer.device)
    x = batches.images[index].float()
    with evaluation_mode(trainer.vae), torch.enable_grad():
        step = take_step(trainer.vae, phase, x, index, 0.5, recorded, trainer.state)
    return recorded.requests, step.guide_log_likelihood is not None


def one_by_one(trainers: Sequence[Trainer]) -> None:
    """One step of every run, each by itself: the reference that joint steps are compared with."""
    for trainer in trainers:
        trainer.advance()


def train(
    trainers: Sequence[Trainer],
    advance: Callable[[Sequence[Trainer]], None],
    checkpoint_seconds: float,
    stop: Callable[[], bool],
) -> None:
    """Train runs side by side to the end, each from its newest checkpoint, if there is one.

    Args:
        trainers: The runs.
        advance: Makes one step of every run that it is given.
        checkpoint_seconds: Wall time between checkpoints, at least; see ``LARGEST_SHARE_OF_CHECKPOINTS``.
        stop: Asked after every step; True saves checkpoints and raises ``Interrupted``.

    Raises:
        Interrupted: ``stop`` said so.
    """
    for trainer in trainers:
        trainer.begin()
    last_save, saving = time.monotonic(), 0.0
    last_told = last_save
    while running := [trainer for trainer in trainers if not trainer.done]:
        started = time.monotonic()
        advance(running)
        now = time.monotonic()
        for trainer in running:
            trainer.seconds += (now - started) / len(running)
        if now - last_told > PROGRESS_SECONDS:
            for trainer in running:
                trainer.tell(now)
            last_told = now
        if all(trainer.done for trainer in running):
            break
        stopping = stop()
        rest = saving / LARGEST_SHARE_OF_CHECKPOINTS if saving > LONG_CHECKPOINT else 0.0
        if stopping or now - last_save > max(checkpoint_seconds, rest):
            for trainer in trainers:
                trainer.save()
            last_save = time.monotonic()
            saving = last_save - now
        if stopping:
            raise Interrupted


def flattened(curve: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a curve has stopped falling: see ``FLATTENED_TOLERANCE``."""
    values = [entry["selection_bpd"] for entry in curve if entry["selection_bpd"] is not None]
    tenth = max(1, len(values) // 10)
    if len(values) < 2 * tenth:
        return False
    last, before = values[-tenth:], values[-2 * tenth : -tenth]
    return sum(before) / tenth - sum(last) / tenth < FLATTENED_TOLERANCE


def epochs_to(curve: Sequence[Mapping[str, Any]], threshold: float | None) -> int | None:
    """First evaluated epoch whose selection bound is at or under ``threshold`` bits/dim; None if there is none."""
    if threshold is None:
        return None
    reached = [e["epoch"] for e in curve if e["selection_bpd"] is not None and e["selection_bpd"] <= threshold]
    return min(reached, default=None)


def _line(entry: CurveEntry) -> str:
    return json.dumps(entry, sort_keys=True) + "\n"
