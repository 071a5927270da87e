"""The evaluation of a selected run says of its weights what a fresh measurement says."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from silent_gradients.evaluation.gradient_variance import gradient_variance
from silent_gradients.evaluation.importance_weighted import importance_weighted
from silent_gradients.evaluation.limits import pca_limit
from silent_gradients.evaluation.metrics import evaluate
from silent_study.data.batches import dequantize
from silent_study.data.prepared import EVALUATION_NOISE_SEED
from silent_study.evaluation.selected import evaluate_selected
from silent_study.jobs.pack import run_pack
from silent_study.settings import EvaluationSettings
from silent_study.store.packs import PackSpec
from silent_study.store.runs import RunStore
from silent_study.training.build import load_snapshot
from silent_study.training.seeds import generator

CPU = torch.device("cpu")
ASKED = EvaluationSettings(samples=3, variance_images=5, variance_draws=4, reconstructions=2)


def evaluation_images(images):
    """As evaluations see them: torch's generator draws the same noise as the file that they read."""
    return dequantize(torch.tensor(images), 17, torch.Generator().manual_seed(EVALUATION_NOISE_SEED))


def evaluated(place, store, settings, asked=ASKED):
    """Train and evaluate one selected run; the run, its data and its evaluation."""
    pack = PackSpec("seeds", f"tiny/{settings.experiment}", (settings,), asked)
    run_pack(pack, store, place.folder, CPU, checkpoint_seconds=3600.0, stop=lambda: False)
    run = store.verified(settings.name, settings.id)
    return run, place.load(settings), json.loads((run.folder / "evaluation.json").read_text())


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store")


@pytest.mark.parametrize(
    "cell", ["fixed/reinforce", "learnable/reinforce+silent", "learnable/silent-gaussian", "log-linear/reinforce"]
)
def test_every_number_is_that_of_a_fresh_measurement(tiny, store, cell):
    settings = tiny.settings(cell, epochs=4, snapshot_epochs=(2, 4))
    run, data, document = evaluated(tiny, store, settings)
    prepared = tiny.prepared
    vae, _ = load_snapshot(settings, data.mean, data.deviation, run.folder / "weights.pt", CPU)
    # The report is of the test images, which nothing else has read; "train" is of as many training images.
    for split, images, name in (("report", prepared.test, "test"), ("train", prepared.train[:24], "train")):
        x = evaluation_images(images)
        expected = evaluate(vae, x, 17, name, 3, generator(0, "evaluation", CPU))
        assert document[split] == expected.to_json()
    if cell.startswith("fixed"):
        limit = pca_limit(prepared.train[:72], prepared.test, 17, 3, 0.02)
        assert document["limit"] == dataclasses.asdict(limit)
    else:
        assert document["limit"] is None
    if cell.startswith("log-linear"):
        assert document["report"]["bpd_mc_error"] == 0
    if vae.estimator is None:
        assert document["gradient_variance"] == []
    else:
        assert [entry["epoch"] for entry in document["gradient_variance"]] == [2, 4]
    selection = evaluation_images(prepared.train[72:77])
    for entry in document["gradient_variance"]:
        path = run.folder / f"snapshot-{entry['epoch']}.pt"
        vae, state = load_snapshot(settings, data.mean, data.deviation, path, CPU)
        source = generator(settings.seed, "gradient-variance", CPU)
        assert vae.estimator is not None
        found = gradient_variance(vae, vae.estimator, selection, state, 4, source)
        assert (entry["images"], entry["draws"]) == (5, 4)
        assert entry["estimators"] == {
            "reinforce": {"batch_mean": found.batch_mean, "per_image_mean": found.per_image_mean}
        }
    with np.load(run.folder / "reconstructions.npz") as pictures:
        names = {"originals", "means"} | (set() if cell.startswith("fixed") else {"standard_deviations"})
        assert set(pictures) == names
        assert all(pictures[name].shape == (2, 1, 4, 4) for name in names)
        np.testing.assert_array_equal(pictures["originals"], evaluation_images(prepared.test[:2]).numpy())


def test_the_importance_weighted_bound_stands_beside_the_reports_metrics(tiny, store):
    asked = dataclasses.replace(ASKED, importance_samples=20)
    settings = tiny.settings("learnable/reinforce", epochs=2)
    run, data, document = evaluated(tiny, store, settings, asked)
    vae, _ = load_snapshot(settings, data.mean, data.deviation, run.folder / "weights.pt", CPU)
    expected = importance_weighted(vae, data.report, 17, 20, generator(0, "evaluation", CPU)).to_json()
    assert {name: document["report"][name] for name in expected} == expected
    assert not set(document["train"]) & set(expected)
    assert document["settings"]["importance_samples"] == 20


def test_the_papers_protocol_selects_and_reports_on_the_test_images(tiny, store):
    settings = tiny.settings("fixed/silent-gaussian", epochs=2)
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, protocol="paper", holdout=0))
    run, _, document = evaluated(tiny, store, settings)
    assert run.result["selection"]["split"] == "test"
    assert run.result["selection"]["bpd"] == pytest.approx(document["report"]["bpd"], rel=1e-9)
    assert document["limit"] == dataclasses.asdict(pca_limit(tiny.prepared.train, tiny.prepared.test, 17, 3, 0.02))


def test_the_silent_gradients_variance_is_measured_as_zero(tiny, store):
    _, _, document = evaluated(tiny, store, tiny.settings("fixed/silent-bernoulli", epochs=2))
    assert document["gradient_variance"] == [
        {
            "epoch": 2,
            "images": 5,
            "draws": 4,
            "estimators": {"silent": {"batch_mean": 0.0, "per_image_mean": 0.0}},
        }
    ]


def test_the_same_evaluation_is_not_made_twice(tiny, store, monkeypatch):
    settings = tiny.settings("fixed/silent-gaussian", epochs=2)
    run, data, document = evaluated(tiny, store, settings)

    def unexpected(*_, **__):
        raise AssertionError("evaluated again")

    arguments = (run, settings, ASKED, tiny.prepared, data, CPU)
    with monkeypatch.context() as patch:
        patch.setattr("silent_study.evaluation.selected.evaluate", unexpected)
        assert evaluate_selected(*arguments) == document
        more = dataclasses.replace(ASKED, samples=4)
        with pytest.raises(AssertionError, match="again"):
            evaluate_selected(run, settings, more, tiny.prepared, data, CPU)
    assert evaluate_selected(run, settings, more, tiny.prepared, data, CPU)["report"]["samples"] == 4
    assert evaluate_selected(*arguments) == document
