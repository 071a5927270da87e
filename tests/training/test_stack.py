"""Runs in a stack: what each would be alone, whatever lies beside it."""

import dataclasses
from typing import Any

import pytest
import torch
from tests.tiny import CPU, assert_same, train

from silent_gradients.estimators import REGISTRY
from silent_study.methods import METHODS
from silent_study.training import checkpoint
from silent_study.training.loop import Interrupted
from silent_study.training.stack import cut_into_stacks, mappable, stack_key

PAPERS = {"silent", "none", "reparameterization", "gumbel-softmax", "reinforce"}
GUIDES: list[tuple[str, dict[str, Any]]] = [
    ("learnable/silent-gaussian", {"log_term": "auto"}),
    ("learnable/silent-bernoulli", {"log_term": "central-limit"}),
    ("learnable/reparameterization+silent", {"guide": "log-linear"}),
    ("learnable/reinforce+silent", {"guide": "log-linear"}),
]


def cases(estimators: set[str]) -> list[Any]:
    """Cells of some estimators, and the guides that the paper does not have."""
    cells = [(f"{experiment}/{name}", method) for experiment in METHODS for name, method in METHODS[experiment].items()]
    return [pytest.param(cell, {}, id=cell) for cell, method in cells if method.estimator in estimators] + [
        pytest.param(cell, guide, id=f"{cell}, {next(iter(guide.values()))}") for cell, guide in GUIDES
    ]


MAPPABLE = {"none"} | {name for name, estimator in REGISTRY.items() if estimator.mappable}


def trainers(place, folder, runs):
    return [place.trainer(run, folder / f"{number}") for number, run in enumerate(runs)]


def finished(place, folder, runs, *, stacked=True):
    """Trainers that have trained to the end."""
    made = trainers(place, folder, runs)
    train(*made, stacked=stacked)
    return made


def outcome(trainer):
    """Everything that a run ends with."""
    optimizers = [each.state_dict() for each in trainer.optimizers.values()]
    generators = [source.get_state() for source in trainer.generators.values()]
    return [dict(trainer.vae.state_dict()), trainer.state, optimizers, generators, trainer.curve]


def assert_equal(one, other):
    assert_same(outcome(one), outcome(other))


def _weight_gradient(images, weights, groups):
    images, weights = (each.to(memory_format=torch.channels_last) for each in (images, weights))
    weights.requires_grad_()
    torch.nn.functional.conv2d(images, weights, groups=groups, padding=1).sin().sum().backward()
    return weights.grad


def _kernels_go_by_the_number_of_groups():
    """Whether oneDNN rounds the weight gradient of two groups otherwise where there is a third.

    With AVX2 it takes another kernel for some numbers of channels, all groups' together.
    """
    source = torch.Generator().manual_seed(0)
    for channels, out in ((1, 2), (2, 4)):
        images = torch.randn(32, 3 * channels, 8, 8, generator=source)
        weights = torch.randn(3 * out, channels, 3, 3, generator=source)
        three = _weight_gradient(images.clone(), weights.clone(), 3)
        two = _weight_gradient(images[:, : 2 * channels].clone(), weights[: 2 * out].clone(), 2)
        if not torch.equal(three[: 2 * out], two):
            return True
    return False


@pytest.fixture
def even_kernels(monkeypatch):
    """oneDNN's convolutions where they round alike for any number of groups, otherwise PyTorch's own, which do."""
    if _kernels_go_by_the_number_of_groups():
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


def variations(place, cell, silent_changes=None, **changes):
    """Runs that can be stacked and differ in everything that such runs may differ in."""
    run = place.settings(cell, silent=silent_changes, **{"epochs": 3, "gradient_clip": 5.0, "batch_size": 32} | changes)
    silent = [run.silent] * 3
    if run.silent is not None:
        only = run.silent.role == "only"
        schedules = ((0.0, 0.4, None), (1.0, 0.9, None if only else 2), (0.5, 0.6, 2))
        silent = [
            dataclasses.replace(run.silent, plateau_epochs=plateau, annealing_rate=rate, cutoff_epoch=cutoff)
            for plateau, rate, cutoff in schedules
        ]
    runs = [
        dataclasses.replace(run, seed=0, silent=silent[0]),
        dataclasses.replace(
            run, seed=1, silent=silent[1], learning_rate=2e-3, epochs=run.epochs + 1, cooldown_epochs=1.5
        ),
        dataclasses.replace(run, seed=2, silent=silent[2], weight_decay=0.1, gradient_clip=None),
    ]
    if run.variance is None:
        return runs
    return [dataclasses.replace(each, variance=run.variance * 3**number) for number, each in enumerate(runs)]


def assert_close(one, other, unsteady=()):
    """Equal but for the rounding of other kernels, which Adam makes a small share of its first steps."""
    for (name, mine), yours in zip(one.vae.state_dict().items(), other.vae.state_dict().values(), strict=True):
        assert torch.allclose(mine, yours, rtol=1e-3, atol=3e-3 if name in unsteady else 1e-4), name
    for mine, yours in zip(one.curve, other.curve, strict=True):
        assert mine.keys() == yours.keys()
        for key, value in mine.items():
            expected = yours[key]
            assert value == (
                pytest.approx(expected, rel=1e-3, abs=1e-3) if isinstance(expected, float) else expected
            ), key


@pytest.mark.parametrize(("cell", "guide"), cases(MAPPABLE))
def test_a_run_in_a_stack_is_the_run_alone(tiny, tmp_path, cell, guide):
    runs = variations(tiny, cell, guide)
    alone = finished(tiny, tmp_path / "alone", runs, stacked=False)
    together = finished(tiny, tmp_path / "together", runs)
    for one, other in zip(alone, together, strict=True):
        assert_close(one, other)
        for stream, source in one.generators.items():
            assert torch.equal(source.get_state(), other.generators[stream].get_state()), stream


@pytest.mark.parametrize("cell", ["learnable/reparameterization+silent", "learnable/silent-bernoulli"])
def test_batch_norm_in_a_stack(strided, tmp_path, cell):
    runs = variations(strided, cell, batch_size=8)
    alone = finished(strided, tmp_path / "alone", runs, stacked=False)
    together = finished(strided, tmp_path / "together", runs)
    for one, other in zip(alone, together, strict=True):
        # A bias before a batch normalization has no gradient but rounding, of which Adam makes whole steps of 0.001; so
        # have single weights of the last such layer, whose outputs for a batch of 8 are few.
        assert_close(one, other, {"encoder.9.weight", "encoder.9.bias", "encoder.11.running_mean"})
        counts = [[v for n, v in t.vae.state_dict().items() if n.endswith("tracked")] for t in (one, other)]
        assert counts[0]
        assert counts[0] == counts[1]


@pytest.mark.usefixtures("even_kernels")
@pytest.mark.parametrize(("cell", "guide"), cases(PAPERS))
def test_neither_the_others_nor_the_place_change_a_run(tiny, tmp_path, cell, guide):
    first, second, third = variations(tiny, cell, guide)
    reference = finished(tiny, tmp_path / "three", [first, second, third])
    for number, runs in enumerate(([first], [second, first], [third, second, first])):
        for trainer in finished(tiny, tmp_path / f"{number}", runs):
            (same,) = [each for each in reference if each.settings == trainer.settings]
            assert_equal(trainer, same)


@pytest.mark.usefixtures("even_kernels")
def test_a_diverged_run_does_not_touch_its_neighbours(tiny, tmp_path):
    healthy = [tiny.settings("learnable/reparameterization", seed=seed) for seed in (0, 1)]
    ill = tiny.settings("learnable/reparameterization", seed=2, learning_rate=1e18)
    reference = finished(tiny, tmp_path / "healthy", healthy)
    one, diverged, other = finished(tiny, tmp_path / "mixed", [healthy[0], ill, healthy[1]])
    assert diverged.diverged_epoch is not None
    assert diverged.epoch < one.epoch
    assert_equal(reference[0], one)
    assert_equal(reference[1], other)


@pytest.mark.parametrize("cell", ["learnable/reinforce+silent", "fixed/silent-bernoulli"])
def test_a_stack_that_stops_after_every_step_is_an_undisturbed_one(tiny, tmp_path, cell):
    runs = variations(tiny, cell)
    undisturbed = finished(tiny, tmp_path / "undisturbed", runs)
    stops = 0
    while True:
        made = trainers(tiny, tmp_path / "stopped", runs)
        try:
            train(*made, stacked=True, stop=lambda: True)
        except Interrupted:
            stops += 1
        else:
            break
    assert stops == 2 * runs[1].epochs - 1  # two steps an epoch, and the longest run's last step stops nothing
    for one, other in zip(undisturbed, made, strict=True):
        assert_equal(one, other)


@pytest.mark.usefixtures("even_kernels")
def test_runs_whose_checkpoints_lie_apart_go_on_in_one_stack(tiny, tmp_path):
    """A process that was killed between two checkpoints leaves one run a few steps ahead of the other."""
    runs = variations(tiny, "learnable/gumbel-softmax+silent")
    undisturbed = finished(tiny, tmp_path / "undisturbed", runs)
    for members, answers in ((runs, [True]), (runs[:1], [False, False, True])):
        left = iter(answers)
        with pytest.raises(Interrupted):
            train(*trainers(tiny, tmp_path / "killed", members), stacked=True, stop=left.__next__)
    saved = [checkpoint.newest(tmp_path / "killed" / f"{number}") for number in range(3)]
    assert [(entry["epoch"], entry["step"]) for entry in saved] == [(2, 0), (0, 1), (0, 1)]
    for one, other in zip(undisturbed, finished(tiny, tmp_path / "killed", runs), strict=True):
        assert_equal(one, other)


def test_a_stack_weighs_the_kl_divergence_of_each_run(tiny, tmp_path):
    runs = variations(tiny, "learnable/reparameterization+silent", kl_warmup_epochs=1.5)
    alone = finished(tiny, tmp_path / "alone", runs, stacked=False)
    for one, other in zip(alone, finished(tiny, tmp_path / "together", runs), strict=True):
        assert_close(one, other)
    (without,) = finished(tiny, tmp_path / "without", [dataclasses.replace(runs[0], kl_warmup_epochs=0.0)])
    assert without.curve[0]["train_kl"] != pytest.approx(alone[0].curve[0]["train_kl"], rel=0.01)


def test_which_runs_can_be_stacked(tiny):
    run = tiny.settings("learnable/reinforce+silent")
    free: dict[str, Any] = {"seed": 3, "learning_rate": 0.5, "epochs": 9, "gradient_clip": 1.0, "weight_decay": 0.3}
    free["cooldown_epochs"] = 2.0
    for name, value in free.items():
        assert stack_key(dataclasses.replace(run, **{name: value})) == stack_key(run), name
    tied: dict[str, Any] = {"batch_size": 8, "latent_dim": 4, "estimator_options": {"decay": 0.5}}
    for name, value in tied.items():
        assert stack_key(dataclasses.replace(run, **{name: value})) != stack_key(run), name
    schedule = dataclasses.replace(run.silent, cutoff_epoch=3, annealing_rate=0.7, plateau_epochs=1.0, mean_rate=0.1)
    assert stack_key(dataclasses.replace(run, silent=schedule)) == stack_key(run)
    fixed = tiny.settings("fixed/reinforce")
    assert stack_key(dataclasses.replace(fixed, variance=0.5)) == stack_key(fixed)
    other = dataclasses.replace(run.silent, log_term="taylor")
    assert stack_key(dataclasses.replace(run, silent=other)) != stack_key(run)


def test_runs_that_cannot_be_mapped_are_alone(tiny):
    run = tiny.settings("fixed/reinforce-silent-control")
    runs = [dataclasses.replace(run, seed=seed) for seed in range(3)]
    assert not mappable(run, CPU)
    assert cut_into_stacks(runs, 4, CPU) == [[each] for each in runs]


def test_batch_normalization_is_not_mapped_on_a_gpu(strided):
    run = strided.settings("learnable/reinforce")
    assert mappable(run, CPU)
    assert not mappable(run, torch.device("cuda"))


def test_stacks_keep_every_run_once(tiny):
    one, other = (tiny.settings(cell) for cell in ("learnable/reinforce", "learnable/reparameterization"))
    runs = [dataclasses.replace(run, seed=seed) for seed in range(5) for run in (one, other)]
    cut = cut_into_stacks(runs, 2, CPU)
    assert [len(stack) for stack in cut] == [2, 2, 1, 2, 2, 1]
    assert sorted(run.name for stack in cut for run in stack) == sorted(run.name for run in runs)
    assert all(len({stack_key(run) == stack_key(stack[0]) for run in stack}) == 1 for stack in cut)
    assert cut_into_stacks(runs[:2], 1, CPU) == [[runs[0]], [runs[1]]]
