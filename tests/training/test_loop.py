"""The training loop: resumed is undisturbed, frozen is frozen, equal seeds share what they should."""

import dataclasses
import json
import math
import os
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import tiny as tiny_study
from tests.tiny import CPU, assert_same

from silent_gradients.vae import VAE
from silent_study import params
from silent_study.data.batches import DeviceBatches, RunData
from silent_study.data.prepare import dequantize, prepare
from silent_study.data.prepared import PreparedData
from silent_study.plan.plan import Plan
from silent_study.settings import FLATTENED_TOLERANCE
from silent_study.training import checkpoint, loop
from silent_study.training.build import build_optimizers, build_vae
from silent_study.training.checkpoint import CURRENT, PREVIOUS, CheckpointError
from silent_study.training.loop import SPEED_WINDOW, Interrupted, Speed, Trainer, epochs_to, flattened
from silent_study.training.seeds import generator

MIRROR = os.environ.get("SILENT_GRADIENTS_MIRROR")
ROOT = Path(__file__).parents[2]

RESUMED: dict[str, tuple[str, dict[str, Any]]] = {
    "fixed, silent": ("fixed/silent-gaussian", {}),
    "fixed, discrete": ("fixed/silent-bernoulli", {"evaluate_every": 1}),
    "sampled, clipped": ("learnable/reparameterization", {"gradient_clip": 0.5}),
    "running average": ("learnable/reinforce", {"seed": 3}),
    "average and annealing": ("learnable/reinforce+silent", {"silent": {"plateau_epochs": 1.5, "annealing_rate": 0.3}}),
    "average per image": ("learnable/reinforce", {"estimator": "reinforce-per-datum"}),
    "silent control": ("learnable/reinforce+silent", {"estimator": "reinforce-silent-control"}),
    "silent baseline": ("learnable/reinforce+silent", {"estimator": "reinforce-silent-baseline"}),
    "annealing, frozen": ("learnable/gumbel-softmax+silent", {"silent": {"cutoff_epoch": 3}, "gradient_clip": 1.0}),
    "silent alone, frozen": ("learnable/silent-bernoulli", {"silent": {"cutoff_epoch": 2}, "snapshot_epochs": (1, 4)}),
    "annealing, cooldown": ("learnable/reparameterization+silent", {"cooldown_epochs": 2.5}),
    "KL warm-up": ("learnable/gumbel-softmax+silent", {"kl_warmup_epochs": 2.5}),
    "log-linear, silent": ("log-linear/silent-bernoulli", {}),
    "log-linear, discrete": ("log-linear/reinforce", {"gradient_clip": 1.0}),
    "two layers": ("two-layer/silent-bernoulli", {"variance": None}),
    "log-linear guide": ("learnable/reparameterization+silent", {"silent": {"guide": "log-linear"}}),
    "quadratic guide": ("learnable/reinforce+silent", {"silent": {"guide": "quadratic"}, "hidden_units": 4}),
    "sampled guide": ("learnable/reinforce+sampled", {"silent": {"cutoff_epoch": 4}}),
    "PyTorch's start": ("learnable/silent-gaussian", {"initialization": "torch", "seed": 8}),
}


@pytest.fixture(params=list(RESUMED.values()), ids=list(RESUMED))
def run_settings(request, tiny):
    cell, changes = request.param
    return tiny.settings(cell, **changes)


def train(tiny, settings, folder, **options):
    """A trainer that has trained to the end, and its result."""
    trainer = tiny.trainer(settings, folder)
    tiny_study.train(trainer, **options)
    return trainer, trainer.result()


def interrupt(tiny, settings, folder, epoch):
    """Train until ``epoch`` is done; the checkpoint stays."""
    trainer = tiny.trainer(settings, folder)
    with pytest.raises(Interrupted):
        tiny_study.train(trainer, stop=lambda: trainer.epoch == epoch)


def assert_same_training(one, other):
    (trainer, result), (other_trainer, other_result) = one, other
    assert result == other_result
    assert trainer.curve == other_trainer.curve
    assert_same(trainer.snapshot(), other_trainer.snapshot())
    for name, optimizer in trainer.optimizers.items():
        assert_same(optimizer.state_dict(), other_trainer.optimizers[name].state_dict())
    for stream, source in trainer.generators.items():
        assert_same(source.get_state(), other_trainer.generators[stream].get_state())
    assert (trainer.folder / "curve.jsonl").read_bytes() == (other_trainer.folder / "curve.jsonl").read_bytes()
    for epoch in trainer.settings.snapshot_epochs:
        files = [torch.load(each.folder / f"snapshot-{epoch}.pt") for each in (trainer, other_trainer)]
        assert_same(*files)


def curve_on_disk(folder):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "curve.jsonl").read_text().splitlines()]


def test_training_that_stops_after_every_step_is_undisturbed_training(tiny, run_settings, tmp_path):
    undisturbed = train(tiny, run_settings, tmp_path / "undisturbed")
    folder, stops = tmp_path / "stopped", 0
    while True:
        try:
            stopped = train(tiny, run_settings, folder, stop=lambda: True)
        except Interrupted:
            stops += 1
        else:
            break
    # As often as there are steps, but for the last one, after which the run is done: 4 steps an epoch.
    assert stops == 4 * run_settings.epochs - 1
    assert_same_training(undisturbed, stopped)
    assert curve_on_disk(folder) == undisturbed[0].curve


def test_a_killed_process_goes_on_from_the_checkpoint(tiny, tmp_path, monkeypatch):
    """Killed in the middle of an epoch, epochs after the last checkpoint: the lines written since are taken back."""
    settings = tiny.settings("learnable/reinforce+silent")
    undisturbed = train(tiny, settings, tmp_path / "undisturbed")
    interrupt(tiny, settings, tmp_path / "killed", 1)

    class Killed(BaseException):
        pass

    steps = 0
    compute = Trainer.compute

    def killed(self, *arguments):
        nonlocal steps
        steps += 1
        if steps == 10:  # 4 steps an epoch: in the third epoch after the checkpoint
            raise Killed
        return compute(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "compute", killed)
        with pytest.raises(Killed):
            train(tiny, settings, tmp_path / "killed")
    assert len(curve_on_disk(tmp_path / "killed")) == 3
    assert_same_training(undisturbed, train(tiny, settings, tmp_path / "killed"))


def test_checkpoints_are_saved_by_the_clock(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LONG_CHECKPOINT", math.inf)  # however long a busy disk takes
    settings = tiny.settings("learnable/reinforce")
    train(tiny, settings, tmp_path / "often", checkpoint_seconds=-1.0)
    # After every step but the last one; an epoch has four.
    for file, step in ((CURRENT, 3), (PREVIOUS, 2)):
        saved = checkpoint.read(tmp_path / "often" / file)
        assert (saved["epoch"], saved["step"]) == (settings.epochs - 1, step)
    train(tiny, settings, tmp_path / "seldom", checkpoint_seconds=3600.0)
    assert not (tmp_path / "seldom" / CURRENT).exists()


def test_checkpoints_that_take_long_are_rare(tiny, tmp_path, monkeypatch):
    """Saving takes a second, a step a tenth: after the first checkpoint the next is due in 100 s, 1000 steps on."""
    seconds, saved = 0.0, []

    def passes(amount, then):
        def call(self, *arguments):
            nonlocal seconds
            seconds += amount
            if then is not None:
                return then(self, *arguments)
            saved.append(seconds)
            return None

        return call

    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    monkeypatch.setattr(Trainer, "save", passes(1.0, None))
    monkeypatch.setattr(Trainer, "compute", passes(0.1, Trainer.compute))
    settings = tiny.settings("fixed/silent-gaussian", epochs=300, evaluate_every=300, snapshot_epochs=())
    train(tiny, settings, tmp_path, checkpoint_seconds=5.0)
    assert saved == pytest.approx([6.1, 107.2], abs=0.2)
    assert len(saved) <= 0.01 * (seconds - len(saved)) + 1


def test_a_run_that_was_done_when_it_was_saved_has_the_same_result(tiny, tmp_path):
    for rate, status in ((1e-3, "finished"), (1e18, "diverged")):
        settings = tiny.settings("learnable/reinforce", learning_rate=rate)
        trainer, result = train(tiny, settings, tmp_path / status)
        trainer.save()
        assert result["status"] == status
        assert train(tiny, settings, tmp_path / status)[1] == result


def test_the_checkpoint_of_another_run_is_refused(tiny, tmp_path):
    settings, other = tiny.settings("learnable/reinforce"), tiny.settings("learnable/reinforce", seed=1)
    interrupt(tiny, settings, tmp_path, 1)
    with pytest.raises(CheckpointError, match=f"{settings.id}, not {other.id}"):
        train(tiny, other, tmp_path)


@pytest.mark.parametrize(
    ("study", "cell"),
    [
        ("tiny", "learnable/silent-gaussian"),
        ("tiny", "learnable/silent-bernoulli"),
        ("tiny", "learnable/reinforce+silent"),
        ("strided", "learnable/reparameterization+silent"),
    ],
)
def test_frozen_means_frozen(request, tmp_path, study, cell):
    place = request.getfixturevalue(study)
    silent = {"cutoff_epoch": 2} | ({} if "silent-" in cell else {"plateau_epochs": 1.0, "annealing_rate": 0.05})
    settings = place.settings(cell, silent=silent, epochs=4, weight_decay=0.5, snapshot_epochs=(1, 2), batch_size=8)
    trainer, _ = train(place, settings, tmp_path)
    early, at_cutoff = (torch.load(tmp_path / f"snapshot-{epoch}.pt")["vae"] for epoch in (1, 2))
    final = trainer.vae.state_dict()
    assert [entry["frozen"] for entry in trainer.curve] == [False, False, True, True]
    assert [entry["alpha"] > 0 for entry in trainer.curve] == [True, True, False, False]
    assert [entry["guide_bpd"] is None for entry in trainer.curve] == [False, False, True, True]
    for name, value in final.items():
        if name.startswith(("encoder", "guide")):
            assert torch.equal(value, at_cutoff[name]), name
            constant = name in ("guide.mean", "guide.scale")
            assert constant or not torch.equal(at_cutoff[name], early[name]), name
    weights = [name for name, _ in trainer.vae.decoder.named_parameters(prefix="decoder")]
    assert not any(torch.equal(final[name], at_cutoff[name]) for name in weights)
    assert any(bool(average.any()) for average in trainer.optimizers["encoder"].averages)  # momentum to be carried by
    # 24 images in batches of 8: the counters of BatchNorm stand at the 6 steps before the cut-off.
    counts = [int(value) for name, value in final.items() if name.endswith("num_batches_tracked")]
    assert sorted(set(counts)) == ([6, 12] if study == "strided" else [])  # encoder and decoder


@pytest.mark.parametrize(
    ("plateau", "rate", "expected"),
    [
        # Alpha of the last of an epoch's four steps: 1 - rate (epochs done - plateau) at 0.75, 1.75, ...
        (0.0, 0.2, [0.85, 0.65, 0.45, 0.25, 0.05]),
        (1.5, 0.5, [1.0, 0.875, 0.375, 0.0, 0.0]),
        (4.0, 1.0, [1.0, 1.0, 1.0, 1.0, 0.25]),
    ],
)
def test_the_weight_of_the_silent_gradient(tiny, tmp_path, plateau, rate, expected):
    settings = tiny.settings(
        "learnable/reinforce+silent", silent={"plateau_epochs": plateau, "annealing_rate": rate}, batch_size=18
    )
    trainer, _ = train(tiny, settings, tmp_path)
    assert [entry["alpha"] for entry in trainer.curve] == pytest.approx(expected)
    # The fourth epoch of the second case begins at alpha 0.25, so that its guide still has a value.
    began = [1 - rate * max(0.0, epoch - plateau) > 0 for epoch in range(5)]
    assert [entry["guide_bpd"] is not None for entry in trainer.curve] == began


@pytest.fixture
def recorded(monkeypatch):
    """Every (x, index) of a training step."""
    steps = []
    original = VAE.training_step

    def record(self, x, **options):
        if self.training:  # else it is the trial that tells which noise a step draws
            steps.append((x.clone(), options["index"].clone()))
        return original(self, x, **options)

    monkeypatch.setattr(VAE, "training_step", record)
    return steps


def test_methods_of_one_seed_see_the_same_images_and_noise(tiny, tmp_path, recorded):
    cells = [
        "fixed/silent-gaussian",
        "learnable/reinforce",
        "learnable/gumbel-softmax+silent",
        "learnable/silent-bernoulli",
    ]
    seen, encoders = {}, {}
    for number, cell in enumerate(cells):
        settings = tiny.settings(cell, epochs=2)
        trainer = tiny.trainer(settings, tmp_path / str(number))
        assert len({source.initial_seed() for source in trainer.generators.values()}) == 3  # streams of their own
        encoders[cell] = {name: value.clone() for name, value in trainer.vae.encoder.state_dict().items()}
        tiny_study.train(trainer)
        seen[cell], recorded[:] = list(recorded), []
    first = seen[cells[0]]
    assert len(first) == 8
    for cell in cells[1:]:
        assert_same(first, seen[cell])
    assert_same(encoders["learnable/reinforce"], encoders["learnable/gumbel-softmax+silent"])
    # Another epoch has another order and other noise, and so has another seed.
    assert not torch.equal(torch.cat([x for x, _ in first[:4]]), torch.cat([x for x, _ in first[4:]]))
    train(tiny, tiny.settings(cells[0], epochs=2, seed=1), tmp_path / "seed")
    assert not torch.equal(recorded[0][1], first[0][1])


def test_the_curve_of_weights_that_stand_still(tiny, tmp_path, recorded):
    """With a vanishing rate the objective of an epoch is that of the first weights on the epoch's images."""
    settings = tiny.settings(
        "fixed/silent-gaussian", epochs=1, learning_rate=1e-30, mean_rate=1e-30, weight_decay=0.0, evaluate_every=1
    )
    trainer, result = train(tiny, settings, tmp_path)
    x = torch.cat([x for x, _ in recorded])
    with torch.no_grad():
        output = trainer.vae.encoder(x).double().numpy()
    linear = trainer.vae.decoder.linear
    W, b = linear.weight.detach().double().numpy(), linear.bias.detach().double().numpy()
    mean, variance = output[:, :3], np.exp(output[:, 3:])
    pixels = x.double().numpy().reshape(len(x), -1)
    error = ((pixels - mean @ W.T - b) ** 2).sum(1) + (variance * (W**2).sum(0)).sum(1)
    log_likelihood = -0.5 * (16 * np.log(2 * np.pi * 0.02) + error / 0.02)
    kl = 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(1)
    (entry,) = trainer.curve
    assert entry["train_kl"] == pytest.approx(kl.mean(), rel=1e-5)
    assert entry["train_bpd"] == pytest.approx(np.log2(17) - (log_likelihood - kl).mean() / (16 * np.log(2)), rel=1e-6)
    assert result["selection"]["bpd"] == entry["selection_bpd"]
    assert result["selection"]["split"] == "holdout"


def test_the_selection_bound_is_evaluated_now_and_then_and_at_the_end(tiny, tmp_path):
    settings = tiny.settings("learnable/reinforce", epochs=7, evaluate_every=3, snapshot_epochs=(1, 7))
    trainer, result = train(tiny, settings, tmp_path)
    evaluated = [entry["epoch"] for entry in trainer.curve if entry["selection_bpd"] is not None]
    assert evaluated == [3, 6, 7]
    assert result["selection"]["bpd"] == trainer.curve[-1]["selection_bpd"]
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["snapshot-1.pt", "snapshot-7.pt"]
    assert_same(torch.load(tmp_path / "snapshot-7.pt"), trainer.snapshot())
    assert result["status"] == "finished"
    assert result["epochs"] == 7


@pytest.mark.parametrize("cell", ["fixed/silent-gaussian", "learnable/silent-bernoulli", "log-linear/silent-gaussian"])
def test_a_cooldown_is_that_of_a_scheduler_of_torch(tiny, tmp_path, recorded, cell):
    settings = tiny.settings(cell, epochs=4, cooldown_epochs=2.5, batch_size=18)
    data = tiny.load(settings)
    vae = build_vae(settings, data.mean, data.deviation)
    trainer, _ = train(tiny, settings, tmp_path)
    steps = list(recorded)
    assert len(steps) == 16
    theirs = [
        torch.optim.AdamW(ours.parameters, lr=ours.rate, betas=settings.betas, weight_decay=0.01, fused=True)
        for ours in build_optimizers(settings, vae).values()
    ]
    schedulers = [torch.optim.lr_scheduler.LambdaLR(each, lambda step: min(1.0, (16 - step) / 10)) for each in theirs]
    vae.train()
    alpha, latent = (0.0 if settings.silent is None else 1.0), generator(settings.seed, "latent", CPU)
    for x, index in steps:
        vae.training_step(x, state={}, alpha=alpha, frozen=False, index=index, generator=latent).loss.backward()
        for optimizer, scheduler in zip(theirs, schedulers, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    for (name, mine), reference in zip(trainer.vae.state_dict().items(), vae.state_dict().values(), strict=True):
        assert torch.allclose(mine, reference, rtol=1e-4, atol=1e-6), name


def test_a_warm_up_raises_the_weight_of_the_kl_divergence_linearly(tiny, tmp_path, monkeypatch):
    settings = tiny.settings("learnable/reparameterization+silent", epochs=4, kl_warmup_epochs=2.5, batch_size=18)
    weights, original = [], VAE.training_step

    def record(self, x, **options):
        if self.training:
            weights.append(float(self.kl_weight))
        return original(self, x, **options)

    monkeypatch.setattr(VAE, "training_step", record)
    trainer, _ = train(tiny, settings, tmp_path)
    assert weights == pytest.approx([min(1.0, step / 10) for step in range(16)])
    assert "kl_weight" not in trainer.vae.state_dict()


def test_the_last_layer_starts_at_the_scale_of_the_settings(tiny):
    runs = [tiny.settings("learnable/reparameterization", last_layer_scale=scale) for scale in (0.1, 1.0)]
    data = tiny.load(runs[0])
    small, large = (build_vae(run, data.mean, data.deviation).decoder.network[-1] for run in runs)
    assert torch.allclose(10 * small.weight, large.weight)
    assert (large.bias == 0).all()


def test_no_gradient_is_longer_than_the_clip(tiny, tmp_path):
    # One batch: the first step's averages are (1 - beta) times its gradient.
    settings = tiny.settings("learnable/reinforce+silent", gradient_clip=0.01, epochs=1, batch_size=10_000)
    trainer, _ = train(tiny, settings, tmp_path)
    for optimizer in trainer.optimizers.values():
        gradient = torch.cat([average.flatten() for average in optimizer.averages]) / (1 - settings.betas[0])
        assert float(gradient.norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("cell", ["fixed/silent-bernoulli", "learnable/reinforce", "learnable/silent-gaussian"])
def test_divergence_is_recorded_with_its_epoch_and_told(tiny, tmp_path, cell, capsys):
    settings = tiny.settings(cell, learning_rate=1e18, epochs=20)
    trainer, result = train(tiny, settings, tmp_path)
    assert result["status"] == "diverged"
    epoch = result["diverged_epoch"]
    assert epoch == result["epochs"] == len(trainer.curve) < 20
    steps = f"in steps {(epoch - 1) * trainer.steps + 1} to {epoch * trainer.steps}"
    (line,) = capsys.readouterr().err.splitlines()
    told, values = f"{settings.name}: diverged in epoch {epoch}, NaN or infinity: ", r"loss(, [\w()|' ]+)*"
    assert re.fullmatch(rf"{re.escape(told)}{values} {steps}; lower its learning rates, or set a .*gradient_clip", line)
    assert result["selection"] is None
    entries = curve_on_disk(tmp_path)
    assert entries == trainer.curve
    assert entries[-1]["selection_bpd"] is None
    assert not (tmp_path / CURRENT).exists()


def curve(*bounds):
    return [{"epoch": number, "selection_bpd": bound} for number, bound in enumerate(bounds, 1)]


STEP = FLATTENED_TOLERANCE


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ([], False),
        ([3.0], False),  # nothing to compare with
        ([None, 3.0, None], False),
        ([3.0, 3.0], True),
        ([3.0, 3.0 - 2 * STEP], False),
        ([3.0, None, 3.0 - STEP / 2], True),
        ([3.0, 3.5], True),  # it has stopped falling
        # Twenty evaluations: the last two against the two before, whatever came earlier.
        ([9.0 - i / 10 for i in range(16)] + [5.0, 5.0, 5.0, 5.0], True),
        ([5.0] * 16 + [5.0, 5.0, 4.99, 4.99], False),
        ([5.0] * 16 + [5.0, 4.998, 4.997, 4.996], True),  # 4.999 - 4.9965 < 0.005
        ([5.0] * 16 + [5.0, 4.998, 4.994, 4.993], False),  # 4.999 - 4.9935 > 0.005
    ],
)
def test_flattened(bounds, expected):
    assert flattened(curve(*bounds)) is expected


@pytest.mark.parametrize(
    ("bounds", "threshold", "expected"),
    [
        ([5.0, 4.0, 3.0], 4.0, 2),
        ([5.0, None, 4.0, 3.0], 4.5, 3),
        ([5.0, 3.9, 4.1], 4.0, 2),  # the first time counts, also if it rises again
        ([5.0, 4.0], 3.9, None),
        ([5.0, 4.0], None, None),
        ([], 4.0, None),
        ([None], 4.0, None),
    ],
)
def test_epochs_to(bounds, threshold, expected):
    assert epochs_to(curve(*bounds), threshold) == expected


def test_the_result_tells_of_the_curve(tiny, tmp_path):
    settings = tiny.settings("fixed/silent-gaussian", epochs=6, evaluate_every=1)
    trainer, _ = train(tiny, settings, tmp_path / "first")
    bounds = [entry["selection_bpd"] for entry in trainer.curve]
    threshold = min(bounds)  # the first epoch that reaches it is where it stands
    _, result = train(tiny, dataclasses.replace(settings, threshold_bpd=threshold), tmp_path / "second")
    assert (result["epochs_to_threshold"], result["threshold_bpd"]) == (bounds.index(threshold) + 1, threshold)
    assert result["flattened"] is (bounds[4] - bounds[5] < 0.005)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set of the registry by its name, prepared once."""

    @cache
    def open_prepared(name):
        folder = tmp_path_factory.mktemp(name)
        prepare(name, folder, MIRROR)
        dequantize(name, folder)
        return PreparedData.open(folder)

    return open_prepared


def first_epochs(preset, dataset, experiment, method, prepared, folder, images=None):
    """Train one epoch (of so many images) at every learning rate of a preset's grid; the trainers and their results."""
    plan = Plan(params.resolve({"preset": preset}, ROOT / "presets"))
    (cell,) = [cell for cell in plan.cells() if cell.name == f"{dataset}/{experiment}/{method}"]
    rates = set()
    for _, settings in plan.grid_runs(cell, {}):
        rate = (settings.learning_rate, settings.mean_rate)
        if rate in rates:  # the other axes come into play after the first epoch
            continue
        rates.add(rate)
        silent = settings.silent and dataclasses.replace(settings.silent, cutoff_epoch=None)
        settings = dataclasses.replace(settings, epochs=1, snapshot_epochs=(), silent=silent)
        data = RunData.load(prepared, settings, CPU)
        if images is not None:
            batches = DeviceBatches(prepared.train[:images], prepared.levels, CPU)
            data = dataclasses.replace(data, batches=batches, selection=data.selection[:500])
        trainer = Trainer(settings, data, folder / settings.id, CPU)
        tiny_study.train(trainer)
        yield trainer, trainer.result()


ON_MNIST = [pytest.mark.slow, pytest.mark.skipif(MIRROR is None, reason="SILENT_GRADIENTS_MIRROR names no mirror")]


@pytest.mark.parametrize("method", ["silent-bernoulli", "gumbel-softmax", "reinforce"])
@pytest.mark.parametrize("experiment", ["fixed", "learnable"])
@pytest.mark.parametrize(
    ("preset", "dataset", "images"),
    [
        ("digits", "digits", None),
        pytest.param("mnist-short", "mnist", 12_800, marks=ON_MNIST),
        pytest.param("mnist-reduced", "mnist", 12_800, marks=ON_MNIST),
    ],
)
def test_no_bits_saturate_in_the_first_steps(prepared, tmp_path, preset, dataset, images, experiment, method):
    """Saturated bits cost k log 2 nats, say nothing and never recover."""
    pytest.importorskip("sklearn")
    for trainer, result in first_epochs(preset, dataset, experiment, method, prepared(dataset), tmp_path, images):
        ceiling = 0.99 * trainer.settings.latent_dim * math.log(2)
        assert trainer.curve[0]["train_kl"] < ceiling
        assert result["selection"]["kl"] < ceiling
        assert result["selection"]["saturated_fraction"] < 0.99


def test_a_run_in_training_tells_how_far_it_is(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("silent_study.training.loop.PROGRESS_SECONDS", 0.0)
    settings = tiny.settings(epochs=3)
    seen = []

    def stop():
        seen.append(json.loads((tmp_path / "progress.json").read_text()))
        return False

    trainer, _ = train(tiny, settings, tmp_path, stop=stop)
    # 72 training images make 4 steps of 16 an epoch; after the last step nobody is asked to stop.
    assert [each["epoch"] for each in seen] == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert [each["share"] for each in seen] == [pytest.approx(step / 12) for step in range(1, 12)]
    assert all(each["images_per_second"] > 0 for each in seen)
    last = seen[-1]
    assert last["seconds_left"] == pytest.approx(16 / last["images_per_second"])
    assert 0 < last["seconds"] <= trainer.seconds


def test_a_speed_needs_two_marks_and_forgets_what_is_older_than_its_window():
    speed = Speed()
    for seconds, images, expected in ((10.0, 1000, None), (10.0, 1000, None), (14.0, 1200, 50.0)):
        assert speed.images_per_second is None
        speed.mark(seconds, images)
        assert speed.images_per_second == expected
    speed = Speed()
    for second in range(200):
        speed.mark(float(second), second if second < 100 else 100 + 10 * (second - 100))
    assert speed.images_per_second == pytest.approx(10.0)
    speed.mark(199.0 + 3 * SPEED_WINDOW, 1090)  # it stood still meanwhile
    assert speed.images_per_second == 0.0
