"""Algorithm 1 for runs side by side, resumable bit for bit."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from silent_gradients.estimators.contract import State
from silent_gradients.evaluation.metrics import bits_per_dimension, evaluate, evaluation_mode, finite_or_null
from silent_gradients.latent_noise import NoiseSource, RecordedNoise, Request
from silent_gradients.vae import VAE, Step
from silent_study.data.batches import RunData
from silent_study.settings import FLATTENED_TOLERANCE, RunSettings
from silent_study.store.documents import CurveEntry, Metrics, Progress, Result
from silent_study.store.files import append_text, write_bytes_atomically, write_text_atomically
from silent_study.store.runs import CODE, CURVE, PROGRESS, snapshot_file
from silent_study.training import checkpoint
from silent_study.training.build import build_optimizers, build_vae, silent_schedule
from silent_study.training.seeds import Purpose, generator

LARGEST_SHARE_OF_CHECKPOINTS = 0.01
"""Largest share of the training time that slow checkpoints may take; beyond it they become rarer."""

LONG_CHECKPOINT = 0.1
"""Seconds from which on a checkpoint counts as slow; faster ones are saved as often as is asked for."""

PROGRESS_SECONDS = 2.0
"""Seconds between updates of progress.json."""

SPEED_WINDOW = 60.0
"""Seconds over which the speed is averaged, evaluations and checkpoints included."""

STREAMS: tuple[Purpose, ...] = ("order", "dequantization", "latent")


_SAVED = ("epoch", "step", "diverged_epoch", "order", "seconds", "shared_epochs")
"""Attributes of a trainer that its checkpoints hold as they are."""


class Interrupted(Exception):
    """Training stopped on request, after it saved a checkpoint."""


class Speed:
    """Images per second of wall time over the last ``SPEED_WINDOW`` seconds."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def mark(self, now: float, images: int) -> None:
        """Record that ``images`` images were trained on until ``now`` (seconds of any clock)."""
        self._marks.append((now, images))
        while len(self._marks) > 2 and self._marks[1][0] <= now - SPEED_WINDOW:
            self._marks.popleft()

    @property
    def images_per_second(self) -> float | None:
        """Images per second between the first and the last mark of the window; None before there are two."""
        if len(self._marks) < 2:
            return None
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        return (last - first) / (ended - began) if ended > began else None


@dataclass
class _Sums:
    """Sums over an epoch; ``totals`` stays on the device until the epoch ends."""

    totals: Tensor  # [4], float64: the loss (a mean per step), E_q log p(x|z), the KL and the guide's E_q log p(x|z)
    images: int = 0
    guided_images: int = 0  # in steps that used the guide


class Phase(NamedTuple):
    """The kind of a training step."""

    guided: Literal["no", "alone", "mixed"]  # by no guide, by the guide alone, or by guide and estimator
    frozen: bool  # whether the encoder is frozen


def take_step(
    vae: VAE, phase: Phase, x: Tensor, index: Tensor, alpha: float | Tensor, noise: NoiseSource, state: State
) -> Step:
    """Call ``VAE.training_step`` with the arguments of a phase; only a mixed phase uses ``alpha``."""
    alpha = {"no": 0.0, "alone": 1.0}.get(phase.guided, alpha)
    return vae.training_step(x, state=state, alpha=alpha, frozen=phase.frozen, index=index, generator=noise)


def step_sums(step: Step) -> Tensor:
    """Return what a step adds to ``_Sums.totals``: [4], float64."""
    guide = step.kl.new_zeros(()) if step.guide_log_likelihood is None else step.guide_log_likelihood.sum()
    parts = (step.loss.detach(), step.log_likelihood.sum(), step.kl.sum(), guide)
    return torch.stack(parts).double()


@dataclass
class Trainer:
    """The state of one run in training."""

    settings: RunSettings
    data: RunData  # on the device
    folder: Path  # for the curve, checkpoints and snapshots; made if missing
    device: torch.device
    report: Callable[[Trainer], None] = lambda _trainer: None  # called at the begin, on resuming and after every epoch
    epoch: int = 0  # epochs done
    step: int = 0  # steps done since then
    alpha: float = 0.0  # weight of the silent gradient in the current step
    diverged_epoch: int | None = None  # in which a value was not finite
    seconds: float = 0.0  # training time; runs that are trained together share it evenly
    shared_epochs: int = 0  # that another run trained, and whose time is that run's
    curve: list[CurveEntry] = field(default_factory=list)  # entries of curve.jsonl
    selection: Metrics | None = None  # of the newest weights on the selection split; None if they were not evaluated
    speed: Speed = field(default_factory=Speed)  # of this run

    def __post_init__(self) -> None:
        settings = self.settings
        self.vae = build_vae(settings, self.data.mean, self.data.deviation).to(self.device)
        self.optimizers = build_optimizers(settings, self.vae)
        self.schedule = silent_schedule(settings.silent)
        self.generators = {stream: generator(settings.seed, stream, self.device) for stream in STREAMS}
        self.state = self.vae.initial_state(self.device, len(self.data.batches))
        self.sums = _Sums(torch.zeros(4, device=self.device, dtype=torch.float64))
        self.order = self.generators["order"].get_state()
        self.permutation: Tensor | None = None
        self.steps = self.data.batches.number_of_batches(settings.batch_size)
        self.images_per_step = min(settings.batch_size, len(self.data.batches))
        self.folder.mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        """Resume from the newest checkpoint, if there is one, and write the curve as of then.

        Raises:
            CheckpointError: The checkpoint is of another run.
        """
        saved = checkpoint.newest(self.folder)
        if saved is not None:
            self._restore(saved)
        write_text_atomically(self.folder / CURVE, "".join(_line(entry) for entry in self.curve), lasting=False)
        self.write_progress(time.monotonic())
        self.report(self)

    def write_progress(self, now: float) -> None:
        """Write progress.json; ``now`` is the time in seconds of any clock."""
        self.speed.mark(now, self.steps_done * self.images_per_step)
        document: Progress = {
            "epoch": self.epoch,
            "share": self.steps_done / (self.settings.epochs * self.steps),
            "images_per_second": self.speed.images_per_second,
            "seconds_left": self.seconds_left,
            "seconds": self.seconds,
        }
        write_text_atomically(self.folder / PROGRESS, json.dumps(document), lasting=False)

    @property
    def steps_done(self) -> int:
        """Steps since the beginning."""
        return self.epoch * self.steps + self.step

    @property
    def seconds_left(self) -> float | None:
        """Wall time to the end at the present speed; None before the speed is known."""
        steps, speed = self.settings.epochs * self.steps - self.steps_done, self.speed.images_per_second
        return steps * self.images_per_step / speed if speed else None

    @property
    def done(self) -> bool:
        """True if no step is left."""
        return self.epoch >= self.settings.epochs or self.diverged_epoch is not None

    def begin_step(self) -> Phase:
        """Prepare the next step, set ``alpha`` for it and return its phase."""
        schedule = self.schedule
        frozen = schedule is not None and schedule.frozen(self.epoch)
        if self.permutation is None:
            self.vae.train()
            if frozen:
                self.vae.encoder.eval()
            order = self.generators["order"]
            if self.step == 0:
                self.sums.totals.zero_()
                self.sums.images = self.sums.guided_images = 0
                self.order = order.get_state()
            else:  # repeat the order of the interrupted epoch
                order.set_state(self.order)
            self.permutation = self.data.batches.order(order)
        epochs_done = self.epoch + self.step / self.steps
        self.alpha = 0.0 if schedule is None else schedule.weight(epochs_done)
        if self.settings.cooldown_epochs:
            for optimizer in self.optimizers.values():
                optimizer.scale_rate(self.settings.rate_factor(epochs_done))
        if self.vae.kl_weight is not None:
            self.vae.kl_weight.fill_(min(1.0, epochs_done / self.settings.kl_warmup_epochs))
        if frozen or self.alpha == 0:
            return Phase("no", frozen)
        return Phase("alone" if self.alpha == 1 else "mixed", frozen)

    def next_index(self) -> Tensor:
        """Return the positions in the training set of the current step's images, [B]."""
        assert self.permutation is not None, "begin_step comes first"
        size = self.settings.batch_size
        return self.permutation[self.step * size : (self.step + 1) * size]

    def compute(self, phase: Phase, index: Tensor, alpha: float | Tensor) -> None:
        """Compute a step's gradients and update the weights, without waiting for the device.

        ``index`` [B] has the positions of the images in the training set; alpha counts in a mixed phase alone.
        """
        x = self.data.batches.at(index, self.generators["dequantization"])
        step = take_step(self.vae, phase, x, index, alpha, self.generators["latent"], self.state)
        step.loss.backward()
        self.update(step.state, step_sums(step))

    def update(self, state: State, sums: Tensor) -> None:
        """Make the optimizers' steps; write the estimator's new state and the result of ``step_sums`` in place."""
        for optimizer in self.optimizers.values():
            optimizer.step()
        for name, value in state.items():
            self.state[name].copy_(value)
        self.sums.totals += sums

    def end_step(self, images: int, *, guided: bool) -> None:
        """Count a step of so many images; after the last of an epoch, evaluate if due and extend the curve."""
        self.sums.images += images
        self.sums.guided_images += images if guided else 0
        self.step += 1
        if self.step < self.steps:
            return
        self.permutation, self.step, self.selection = None, 0, None
        self.epoch += 1
        frozen = self.schedule is not None and self.schedule.frozen(self.epoch - 1)
        self.curve.append(self._curve_entry(self.sums, 0.0 if frozen else self.alpha, frozen))
        append_text(self.folder / CURVE, _line(self.curve[-1]))
        if self.diverged_epoch is None and self.epoch in self.settings.snapshot_epochs:
            write_bytes_atomically(self.folder / snapshot_file(self.epoch), checkpoint.serialized(self.snapshot()))
        self.report(self)

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
        values = {"loss": loss, "E log p(x|z)": log_likelihood, "KL divergence": kl, "guide's E log p(x|z)": guide}
        if wrong := [name for name, value in values.items() if not math.isfinite(value)]:
            self._diverged(f"{', '.join(wrong)} in steps {self.steps_done - self.steps + 1} to {self.steps_done}")
        elif self.epoch % settings.evaluate_every == 0 or self.epoch == settings.epochs:
            self.selection = self._evaluate_selection()
            entry |= {"selection_bpd": self.selection["bpd"], "selection_kl": self.selection["kl"]}
            if self.selection["bpd"] is None:
                self._diverged("bits/dim on the selection split")
        return cast("CurveEntry", finite_or_null(entry))

    def _diverged(self, what: str) -> None:
        self.diverged_epoch = self.epoch
        fix = "lower its learning rates, or set a lower gradient_clip"
        message = f"diverged in epoch {self.epoch}, NaN or infinity: {what}; {fix}"
        print(f"{self.settings.name}: {message}", file=sys.stderr, flush=True)

    def _evaluate_selection(self) -> Metrics:
        # Every evaluation draws the same latent samples, so that points of a curve differ by the weights alone.
        settings, data = self.settings, self.data
        latent = generator(0, "evaluation", self.device)
        found = evaluate(
            self.vae, data.selection, settings.data.levels, data.selection_name, settings.evaluation_samples, latent
        )
        return cast("Metrics", found.to_json())

    def snapshot(self) -> dict[str, Any]:
        """Return the weights and the estimator's state, which evaluations read."""
        # Copies: of a view, torch.save writes all that it is a view of, here the weights of a whole stack.
        return {"vae": {name: value.clone() for name, value in self.vae.state_dict().items()}, "state": self.state}

    def save(self) -> None:
        """Save a checkpoint."""
        checkpoint.save(self.folder, self._state(self.settings))

    def fork(self, settings: RunSettings, folder: Path) -> None:
        """Save a checkpoint of another run in its folder: one whose epochs so far are this run's, bit for bit."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (CODE, *map(snapshot_file, settings.snapshot_epochs)):
            if (self.folder / name).exists():
                write_bytes_atomically(folder / name, (self.folder / name).read_bytes())
        checkpoint.save(folder, self._state(settings) | {"seconds": 0.0, "shared_epochs": self.epoch})

    def _state(self, settings: RunSettings) -> dict[str, Any]:
        return self.snapshot() | {
            **{name: getattr(self, name) for name in _SAVED},
            "run": settings.id,
            "sums": asdict(self.sums),
            "curve": json.dumps(self.curve),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "generators": {stream: source.get_state() for stream, source in self.generators.items()},
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        if saved["run"] != self.settings.id:
            raise checkpoint.CheckpointError(
                f"{self.folder}: the checkpoint is of run {saved['run']}, not {self.settings.id}; remove the folder"
            )
        self.vae.load_state_dict(saved["vae"])
        self.state = {name: value.to(self.device) for name, value in saved["state"].items()}
        for name in _SAVED:
            setattr(self, name, saved.get(name, getattr(self, name)))  # older checkpoints lack some
        self.sums = _Sums(**saved["sums"])
        self.sums.totals = self.sums.totals.to(self.device)
        self.curve = json.loads(saved["curve"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
        for stream, source in self.generators.items():
            source.set_state(saved["generators"][stream])

    def result(self) -> Result:
        """Return the content of result.json, for a run that is done."""
        settings = self.settings
        # A run that was done when it was saved resumes without its last evaluation.
        if self.diverged_epoch is None and self.selection is None:
            self.selection = self._evaluate_selection()
        return {
            "status": "finished" if self.diverged_epoch is None else "diverged",
            "diverged_epoch": self.diverged_epoch,
            "epochs": self.epoch,
            "selection": self.selection if self.diverged_epoch is None else None,
            "flattened": flattened(self.curve),
            "threshold_bpd": settings.threshold_bpd,
            "epochs_to_threshold": epochs_to(self.curve, settings.threshold_bpd),
        }


def trial_step(trainer: Trainer, phase: Phase) -> tuple[list[Request], bool]:
    """Return the noise that a step of a run draws, and True if it uses the guide: of one without noise or update."""
    recorded = RecordedNoise()
    batches, size = trainer.data.batches, trainer.settings.batch_size
    index = torch.arange(min(size, len(batches)), device=trainer.device)
    x = batches.images[index].float() / trainer.settings.data.levels  # without noise
    with evaluation_mode(trainer.vae), torch.enable_grad():
        step = take_step(trainer.vae, phase, x, index, 0.5, recorded, trainer.state)
    return recorded.requests, step.guide_log_likelihood is not None


def train(
    trainers: Sequence[Trainer],
    advance: Callable[[Sequence[Trainer]], None],
    checkpoint_seconds: float,
    stop: Callable[[], bool],
) -> None:
    """Train runs side by side to the end, each from its newest checkpoint, if there is one.

    ``advance`` makes one step of every run that it is given (``Stepper.advance``). At least ``checkpoint_seconds`` of
    wall time lie between checkpoints; see ``LARGEST_SHARE_OF_CHECKPOINTS``. ``stop`` is called after every step but the
    last; True ends the training.

    Raises:
        Interrupted: ``stop`` returned True; the checkpoints are saved.
    """
    for trainer in trainers:
        trainer.begin()
    last_save, saving = time.monotonic(), 0.0
    last_progress = last_save
    while running := [trainer for trainer in trainers if not trainer.done]:
        started = time.monotonic()
        advance(running)
        now = time.monotonic()
        for trainer in running:
            trainer.seconds += (now - started) / len(running)
        if now - last_progress > PROGRESS_SECONDS:
            for trainer in running:
                trainer.write_progress(now)
            last_progress = now
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
    """Return True if a curve has stopped falling, by ``FLATTENED_TOLERANCE``."""
    values = [entry["selection_bpd"] for entry in curve if entry["selection_bpd"] is not None]
    tenth = max(1, len(values) // 10)
    if len(values) < 2 * tenth:
        return False
    last, before = values[-tenth:], values[-2 * tenth : -tenth]
    return sum(before) / tenth - sum(last) / tenth < FLATTENED_TOLERANCE


def epochs_to(curve: Sequence[Mapping[str, Any]], threshold: float | None) -> int | None:
    """Return the first evaluated epoch with a selection bound of at most ``threshold`` bits/dim, or None."""
    if threshold is None:
        return None
    reached = [e["epoch"] for e in curve if e["selection_bpd"] is not None and e["selection_bpd"] <= threshold]
    return min(reached, default=None)


def _line(entry: CurveEntry) -> str:
    return json.dumps(entry, sort_keys=True) + "\n"
