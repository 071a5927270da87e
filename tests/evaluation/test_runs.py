"""Evaluations of stored runs are those of a fresh measurement, and one made again leaves the store as it was."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from tests.tiny import CPU

from silent_gradients.evaluation.gradient_variance import gradient_variance
from silent_gradients.evaluation.importance_weighted import importance_weighted
from silent_gradients.evaluation.limits import pca_limit
from silent_gradients.evaluation.metrics import evaluate
from silent_study.cli import main
from silent_study.data.batches import dequantize
from silent_study.data.errors import DataError
from silent_study.data.prepared import EVALUATION_NOISE_SEED
from silent_study.evaluation.runs import DEFAULT_SAMPLES, OpenRun, evaluate_again, evaluate_selected
from silent_study.settings import EvaluationSettings, SettingsError
from silent_study.store.runs import RunStore, StoreError
from silent_study.training.build import load_snapshot
from silent_study.training.seeds import generator

WEIGHTED = EvaluationSettings(3, variance_images=4, variance_draws=3, reconstructions=1, importance_samples=5)
ASKED = EvaluationSettings(samples=3, variance_images=5, variance_draws=4, reconstructions=2)


def evaluation_images(images):
    """As evaluations see them: torch's generator draws the same noise as the file that they read."""
    return dequantize(torch.tensor(images), 17, torch.Generator().manual_seed(EVALUATION_NOISE_SEED))


def selected(place, store, settings, asked=ASKED):
    """Train and evaluate one selected run; the run, its data and its evaluation."""
    (run,) = place.train_stored(store, settings, evaluation=asked)
    return run, place.load(settings), json.loads((run.folder / "evaluation.json").read_text())


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store")


@pytest.mark.parametrize(
    "cell",
    [
        "fixed/reinforce",
        "learnable/reinforce+silent",
        "learnable/silent-gaussian",
        "log-linear/reinforce",
        "two-layer/reinforce",
    ],
)
def test_every_number_is_that_of_a_fresh_measurement(tiny, store, cell):
    settings = tiny.settings(cell, epochs=4, snapshot_epochs=(2, 4))
    run, data, document = selected(tiny, store, settings)
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
    if cell.startswith(("log-linear", "two-layer")):
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
        names = {"originals", "means"} | (set() if cell.startswith(("fixed", "two")) else {"standard_deviations"})
        assert set(pictures) == names
        assert all(pictures[name].shape == (2, 1, 4, 4) for name in names)
        np.testing.assert_array_equal(pictures["originals"], evaluation_images(prepared.test[:2]).numpy())


def test_the_importance_weighted_bound_stands_beside_the_reports_metrics(tiny, store):
    asked = dataclasses.replace(ASKED, importance_samples=20)
    settings = tiny.settings("learnable/reinforce", epochs=2)
    run, data, document = selected(tiny, store, settings, asked)
    vae, _ = load_snapshot(settings, data.mean, data.deviation, run.folder / "weights.pt", CPU)
    expected = importance_weighted(vae, data.report, 17, 20, generator(0, "evaluation", CPU)).to_json()
    assert {name: document["report"][name] for name in expected} == expected
    assert not set(document["train"]) & set(expected)
    assert document["settings"]["importance_samples"] == 20


def test_the_papers_protocol_selects_and_reports_on_the_test_images(tiny, store):
    settings = tiny.settings("fixed/silent-gaussian", epochs=2)
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, protocol="paper", holdout=0))
    run, _, document = selected(tiny, store, settings)
    assert run.result["selection"]["split"] == "test"
    assert run.result["selection"]["bpd"] == pytest.approx(document["report"]["bpd"], rel=1e-9)
    assert document["limit"] == dataclasses.asdict(pca_limit(tiny.prepared.train, tiny.prepared.test, 17, 3, 0.02))


def test_the_silent_gradients_variance_is_measured_as_zero(tiny, store):
    _, _, document = selected(tiny, store, tiny.settings("fixed/silent-bernoulli", epochs=2))
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
    run, data, document = selected(tiny, store, settings)

    def unexpected(*_, **__):
        raise AssertionError("evaluated again")

    opened = OpenRun(run, settings, tiny.prepared, data, CPU)
    with monkeypatch.context() as patch:
        patch.setattr("silent_study.evaluation.runs.evaluate", unexpected)
        assert evaluate_selected(opened, ASKED) == document
        more = dataclasses.replace(ASKED, samples=4)
        with pytest.raises(AssertionError, match="again"):
            evaluate_selected(opened, more)
    assert evaluate_selected(opened, more)["report"]["samples"] == 4
    assert evaluate_selected(opened, ASKED) == document


def trained(tiny, folder, evaluation=WEIGHTED, rates=(1e-3,), **changes):
    changes = {"epochs": 2, "snapshot_epochs": ()} | changes
    members = [tiny.settings("learnable/reinforce", learning_rate=rate, **changes) for rate in rates]
    runs = tiny.train_stored(RunStore(folder / "results" / "store"), *members, evaluation=evaluation)
    return [run.folder for run in runs], members[0]


@pytest.fixture(scope="module")
def evaluated(tiny, tmp_path_factory):
    (folder,), settings = trained(tiny, tmp_path_factory.mktemp("evaluated"))
    return folder, settings


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("split", "part"), [("test", "report"), ("train", "train")])
def test_without_options_it_repeats_the_kept_evaluation(tiny, evaluated, split, part):
    folder, settings = evaluated
    before = contents(folder.parents[4])
    found = evaluate_again(folder, tiny.folder, split, None, None, CPU)
    kept = json.loads((folder / "evaluation.json").read_text())[part]
    assert found.metrics == kept == found.kept
    assert found.to_json() == {"run": settings.name, "epoch": None, **kept}
    assert contents(folder.parents[4]) == before


def test_other_numbers_of_samples_and_the_images_set_aside(tiny, evaluated):
    folder, settings = evaluated
    found = evaluate_again(folder, tiny.folder, "holdout", 7, 11, CPU)
    data = tiny.load(settings)
    vae, _ = load_snapshot(settings, data.mean, data.deviation, folder / "weights.pt", CPU)
    expected = evaluate(vae, data.selection, 17, "holdout", 7, generator(0, "evaluation", CPU)).to_json()
    weighted = importance_weighted(vae, data.selection, 17, 11, generator(0, "evaluation", CPU))
    assert found.metrics == expected | weighted.to_json()
    assert found.metrics["images"] == 24
    assert found.kept is None


def test_a_snapshot_is_the_run_that_ended_there(tiny, tmp_path):
    (long,), _ = trained(tiny, tmp_path / "long", snapshot_epochs=(1, 2))
    (short,), _ = trained(tiny, tmp_path / "short", epochs=1)
    found = evaluate_again(long, tiny.folder, "test", None, None, CPU, epoch=1)
    assert found.metrics == evaluate_again(short, tiny.folder, "test", None, None, CPU).metrics
    assert (found.kept, found.epoch, found.to_json()["epoch"]) == (None, 1, 1)
    assert evaluate_again(long, tiny.folder, "test", None, None, CPU, epoch=2).metrics != found.metrics
    with pytest.raises(SettingsError, match=r"--epoch 3: this run has no snapshot of it; there are: 1, 2"):
        evaluate_again(long, tiny.folder, "test", None, None, CPU, epoch=3)
    with pytest.raises(SettingsError, match=r"--epoch 1: .*there are: none"):
        evaluate_again(short, tiny.folder, "test", None, None, CPU, epoch=1)


def test_a_run_of_the_grid_has_weights_where_it_is_the_best(tiny, tmp_path):
    folders, _ = trained(tiny, tmp_path, None, rates=(1e-3, 2e-3))
    (best,) = [folder for folder in folders if (folder / "weights.pt").exists()]
    (other,) = [folder for folder in folders if folder != best]
    assert evaluate_again(best, tiny.folder, "test", None, None, CPU).metrics["samples"] == DEFAULT_SAMPLES
    with pytest.raises(StoreError, match="keeps no weights; selected runs do"):
        evaluate_again(other, tiny.folder, "test", None, None, CPU)


def test_what_cannot_be_evaluated_is_named(tiny, evaluated, strided, tmp_path):
    folder, _ = evaluated
    with pytest.raises(DataError, match=r"expected tiny with sha256|found"):
        evaluate_again(folder, strided.folder, "test", None, None, CPU)
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(StoreError, match="not the settings of a run"):
        evaluate_again(tmp_path, tiny.folder, "test", None, None, CPU)


def test_a_protocol_that_sets_nothing_aside_has_no_holdout(tiny, tmp_path):
    data = dataclasses.replace(tiny.settings().data, protocol="paper", holdout=0)
    (folder,), _ = trained(tiny, tmp_path, data=data)
    with pytest.raises(SettingsError, match=r"--split holdout: .* use test"):
        evaluate_again(folder, tiny.folder, "holdout", None, None, CPU)


@pytest.mark.usefixtures("cpu_command")
def test_the_verb_prints_both_and_writes_json(tiny, evaluated, tmp_path, capsys):
    folder, settings = evaluated
    json_file = tmp_path / "numbers.json"
    assert main(["evaluate", str(folder), "--data", str(tiny.folder), "--samples", "2", "--json", str(json_file)]) == 0
    shown = capsys.readouterr().out
    document = json.loads(json_file.read_text())
    assert shown.splitlines()[0] == document["run"] == settings.name
    assert "in the store" in shown
    assert f"{document['bpd']:.5g}" in shown
    assert (document["samples"], document["importance_samples"]) == (2, 5)
    assert main(["evaluate", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"silent-gradients evaluate: {tmp_path}: expected the folder of a run")
