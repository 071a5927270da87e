"""Images per second of our training beside what people would take instead, on the same networks and data.

    python benchmarks/trainers.py [--preset digits] [--rounds 20] [--epochs 1] [--steps 100] [--json FILE]

The others are a careful PyTorch loop (images in memory, channels last, fused AdamW), a plain one over a DataLoader,
Lightning's Trainer and pythae's BaseTrainer; one whose package is missing is left out. Everyone trains the
reparameterization method of the preset from the same weights, with AdamW, in float32, on the same images, dequantized
afresh in every epoch. The images fill whole batches, so that no one has a rest to drop or to train on. Rounds alternate
between the trainers in one process, so that a busy machine slows all of them alike; what is compared are the ratios of
each round.

Timed is an epoch with all that feeds it, also the start of a DataLoader's workers, for which its users wait in every
epoch. Not timed is what happens once per training, nor what pythae does between epochs (it copies its best model).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import platform
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from measuring import (
    Spread,
    arguments,
    cells_by_group,
    hardware,
    in_turns,
    now,
    prepare_data,
    preset_plan,
    undisturbed,
    whole_batches,
)
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor

from silent_gradients import Decoder, FixedVarianceDecoder
from silent_gradients.vae import VAE
from silent_study.data.batches import RunData
from silent_study.settings import RunSettings
from silent_study.training.build import build_vae
from silent_study.training.device import configure_torch
from silent_study.training.loop import Trainer
from silent_study.training.steps import Stepper

METHOD = "reparameterization"
OURS = "silent-gradients"
CAREFUL = "careful loop"
STACKS = (4, 8)
Contender = Callable[[int], float]
"""Trains this many epochs and returns the seconds they took."""


@dataclass(frozen=True)
class Task:
    """What everyone is given to train."""

    settings: RunSettings
    data: RunData
    device: torch.device
    folder: Path

    def vae(self) -> VAE:
        """The networks, with the weights that every run of these settings starts from, as PyTorch lays them out."""
        vae = build_vae(self.settings, self.data.mean, self.data.deviation)
        return vae.to(self.device, memory_format=torch.contiguous_format)

    @property
    def optimizer_options(self) -> dict[str, Any]:
        """Of AdamW, beside the rate."""
        return {"betas": self.settings.betas, "weight_decay": self.settings.weight_decay}


class UnsignedImages(Dataset[Tensor]):
    """uint8 images and a transform, as torchvision's data sets hold them."""

    def __init__(self, images: Tensor, transform: Callable[[Tensor], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.images[index])


class PilImages(UnsignedImages):
    """The same by way of PIL, as torchvision's data sets hand images to a transform."""

    def __getitem__(self, index: int) -> Any:
        image = Image.fromarray(self.images[index].permute(1, 2, 0).squeeze(2).numpy())
        return self.transform(to_tensor(image) * 255)


@dataclass(frozen=True)
class Dequantize:
    """A level and a uniform number, as a fraction of all levels."""

    levels: int

    def __call__(self, image: Tensor) -> Tensor:
        return (image + torch.rand(image.shape)) / self.levels


class PlainVAE(nn.Module):
    """The encoder and the decoder with the loss as it is written in tutorials."""

    def __init__(self, encoder: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        """The loss of a batch of images."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
        return (kl + self.reconstruction_loss(x.flatten(1), z)).mean()

    def reconstruction_loss(self, x: Tensor, z: Tensor) -> Tensor:
        """-log p(x|z), with a fixed variance up to a constant, as a squared error."""
        if isinstance(self.decoder, FixedVarianceDecoder):
            return 0.5 / self.decoder.variance * (self.decoder.linear(z) - x).square().sum(1)
        return -self.decoder.likelihood(z[None]).log_prob(x)[0]


def ours(task: Task, stack: int = 1) -> Contender:
    """The loop of this project, for one run or for a stack of them; then the seconds are those of each."""
    runs = [dataclasses.replace(task.settings, seed=seed) for seed in range(stack)]
    trainers = [Trainer(run, task.data, task.folder / f"ours-{stack}-{run.seed}", task.device) for run in runs]
    stepper = Stepper(stacked=stack > 1, captured=task.device.type == "cuda")

    def train(epochs: int) -> float:
        start = now(task.device)
        for _ in range(epochs * trainers[0].steps):
            stepper.advance(trainers)
        return (now(task.device) - start) / stack

    return train


def loader(task: Task, workers: int, kind: type[UnsignedImages] = UnsignedImages) -> DataLoader[Tensor]:
    """A DataLoader over the same images; beside the workers and a shuffle all of it is its default."""
    batches = task.data.batches
    images = kind(batches.images.cpu(), Dequantize(batches.levels))
    return DataLoader(images, task.settings.batch_size, shuffle=True, num_workers=workers)


def plain(task: Task, workers: int, kind: type[UnsignedImages] = UnsignedImages) -> Contender:
    """A loop as it is written by hand."""
    vae, settings, device, batches = task.vae(), task.settings, task.device, loader(task, workers, kind)
    model = PlainVAE(vae.encoder, vae.decoder)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, **task.optimizer_options)

    def train(epochs: int) -> float:
        start = now(device)
        model.train()
        for _ in range(epochs):
            total = 0.0
            for x in batches:
                optimizer.zero_grad()
                loss = model(x.to(device))
                loss.backward()
                if settings.gradient_clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
                optimizer.step()
                total += loss.item()
        return now(device) - start

    return train


def careful(task: Task) -> Contender:
    """A careful loop: images in memory, channels last, fused AdamW, the loss left on the device."""
    vae, settings, device, batches = task.vae(), task.settings, task.device, task.data.batches
    model = PlainVAE(vae.encoder, vae.decoder).to(memory_format=torch.channels_last)
    options = task.optimizer_options | {"fused": True}
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, **options)
    total = torch.zeros((), device=device)

    def train(epochs: int) -> float:
        start = now(device)
        model.train()
        for _ in range(epochs):
            total.zero_()
            for index in torch.randperm(len(batches), device=device).split(settings.batch_size):
                levels = batches.images[index]
                x = ((levels + torch.rand(levels.shape, device=device)) / batches.levels).contiguous(
                    memory_format=torch.channels_last
                )
                optimizer.zero_grad()
                loss = model(x)
                loss.backward()
                if settings.gradient_clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
                optimizer.step()
                total.add_(loss.detach())
            total.item()
        return now(device) - start

    return train


def lightning(task: Task, workers: int) -> Contender:
    """Lightning's Trainer; each call is a training of its own, whose first epoch is left out."""
    import lightning as L

    vae, settings, device, batches = task.vae(), task.settings, task.device, loader(task, workers)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = PlainVAE(vae.encoder, vae.decoder)

        def training_step(self, batch: Tensor) -> Tensor:
            return self.model(batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), settings.learning_rate, **task.optimizer_options)

    class Clock(L.Callback):
        start = end = 0.0

        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:
                self.start = now(device)

        def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.end = now(device)

    module = Module()

    def train(epochs: int) -> float:
        clock = Clock()
        trainer = L.Trainer(
            max_epochs=1 + epochs,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            gradient_clip_val=settings.gradient_clip,
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, batches)
        return clock.end - clock.start

    return train


def pythae(task: Task) -> Contender:
    """pythae's trainer of its VAE, with its own squared error, which is that of variance 1."""
    from pythae import models
    from pythae.data.datasets import DatasetOutput
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback

    vae, settings, device, batches = task.vae(), task.settings, task.device, task.data.batches
    decoder = vae.decoder
    assert isinstance(decoder, FixedVarianceDecoder)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = vae.encoder

        def forward(self, x: Tensor) -> Any:
            mean, log_variance = self.network(x).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class LinearDecoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = decoder.linear

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.network(z))

    class Images(UnsignedImages):
        def __getitem__(self, index: int) -> Any:
            return DatasetOutput(data=super().__getitem__(index))

    model = models.VAE(models.VAEConfig(settings.data.shape, settings.latent_dim), Encoder(), LinearDecoder())
    config = BaseTrainerConfig(
        output_dir=str(task.folder / "pythae"),
        per_device_train_batch_size=settings.batch_size,
        optimizer_cls="AdamW",
        optimizer_params=task.optimizer_options,
        learning_rate=settings.learning_rate,
        no_cuda=device.type != "cuda",
    )
    trainer = BaseTrainer(model, Images(batches.images.cpu(), Dequantize(batches.levels)), training_config=config)
    # As its ``train`` prepares itself, but without the progress bar and the printer that it adds to every training.
    trainer.set_optimizer()
    trainer.callback_handler = CallbackHandler([TrainingCallback()], model)

    def train(epochs: int) -> float:
        start = now(device)
        for epoch in range(epochs):
            trainer.train_step(epoch)
        return now(device) - start

    return train


def contenders(task: Task, beside: Sequence[str] | None) -> dict[str, Contender]:
    """Everyone who can train the task, by name; ours first, then those that are named, or all."""
    makers: dict[str, Callable[[Task], Contender]] = {OURS: ours}
    makers |= {f"{OURS}, stack of {size}": partial(ours, stack=size) for size in STACKS}
    makers[CAREFUL] = careful
    makers |= {f"plain loop, {workers} workers": partial(plain, workers=workers) for workers in (0, 2)}
    makers["plain loop, PIL, 0 workers"] = partial(plain, workers=0, kind=PilImages)
    if _version("lightning"):
        makers |= {f"lightning, {workers} workers": partial(lightning, workers=workers) for workers in (0, 2)}
    # Its losses have no variance that is learned.
    if _version("pythae") and task.settings.experiment == "fixed":
        makers["pythae"] = pythae
    return {name: make(task) for name, make in makers.items() if beside is None or name in (OURS, *beside)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__.splitlines()[0], rounds=20, steps=100)
    parser.add_argument("--epochs", type=int, default=1, help="epochs per round")
    parser.add_argument("--beside", nargs="*", help="names of the other rows; default: all")
    options = parser.parse_args()
    device = torch.device(options.device)
    configure_torch(options.threads)
    # Lightning and pythae tell of themselves at every turn.
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("lightning", "pythae"):
        if found := _version(package):
            versions[package] = found
        else:
            print(f"without {package}, which is not installed: pip install -e '.[benchmarks]'")
    print(f"{hardware(device)}; {', '.join(f'{name} {number}' for name, number in versions.items())}")
    plan = preset_plan(options.preset)
    groups = cells_by_group(plan, options.only)
    document: dict[str, Any] = {
        "hardware": hardware(device),
        "versions": versions,
        "options": {name: str(value) for name, value in vars(options).items()},
        "groups": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_data(groups, folder)
        for group, cells in groups.items():
            settings = undisturbed(plan.first_run(next(cell for cell in cells if cell.method.name == METHOD)))
            data = whole_batches(folder / cells[0].dataset, settings, options.steps, device)
            everyone = contenders(Task(settings, data, device, folder / group), options.beside)
            seconds = in_turns([partial(train, options.epochs) for train in everyone.values()], options.rounds)
            images = len(data.batches) * options.epochs
            rates = {name: [images / s for s in taken] for name, taken in zip(everyone, seconds, strict=True)}
            document["groups"][group] = {"images": images, "rates": rates}
            _print_group(f"{group} (batch {settings.batch_size}, n = {options.rounds} x {images})", rates)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def _print_group(title: str, rates: dict[str, list[float]]) -> None:
    print(f"\n{title:44} {'images/s':>9} {'quartiles':>15} {'ours/theirs':>12} {'quartiles':>13}")
    for name, own in rates.items():
        rate = Spread.of(own)
        ratio = Spread.of([mine / theirs for mine, theirs in zip(rates[OURS], own, strict=True)])
        # Down, that no ratio is rounded in our favour.
        low, median, high = (math.floor(100 * value) / 100 for value in ratio)
        print(f"{name:44} {rate.median:9.0f} {rate.low:7.0f}-{rate.high:7.0f} {median:12.2f} {low:6.2f}-{high:6.2f}")


if __name__ == "__main__":
    main()
