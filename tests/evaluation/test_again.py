"""A run evaluated again: the numbers are the store's, and the store is left as it was."""

import json
import shutil

import pytest
import torch

from silent_gradients.evaluation.importance_weighted import importance_weighted
from silent_gradients.evaluation.metrics import evaluate
from silent_study.cli import main
from silent_study.data.errors import DataError
from silent_study.evaluation.again import DEFAULT_SAMPLES, evaluate_again
from silent_study.jobs.pack import run_pack
from silent_study.settings import EvaluationSettings, SettingsError
from silent_study.store.packs import PackSpec
from silent_study.store.runs import RunStore, StoreError
from silent_study.training.build import load_snapshot
from silent_study.training.seeds import generator

CPU = torch.device("cpu")
EVALUATION = EvaluationSettings(3, variance_images=4, variance_draws=3, reconstructions=1, importance_samples=5)


def trained(tiny, folder, round_, rates=(1e-3,), **changes):
    store = RunStore(folder / "results" / "store")
    members = tuple(
        tiny.settings("learnable/reinforce", **{"epochs": 2, "snapshot_epochs": (), "learning_rate": rate, **changes})
        for rate in rates
    )
    pack = PackSpec(round_, "tiny/learnable", members, EVALUATION if round_ == "seeds" else None)
    run_pack(pack, store, tiny.folder, CPU, checkpoint_seconds=3600.0, stop=lambda: False)
    return [store.folder(settings.name) for settings in members], members[0]


@pytest.fixture(scope="module")
def evaluated(tiny, tmp_path_factory):
    (folder,), settings = trained(tiny, tmp_path_factory.mktemp("evaluated"), "seeds")
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
    (long,), _ = trained(tiny, tmp_path / "long", "seeds", snapshot_epochs=(1, 2))
    (short,), _ = trained(tiny, tmp_path / "short", "seeds", epochs=1)
    found = evaluate_again(long, tiny.folder, "test", None, None, CPU, epoch=1)
    assert found.metrics == evaluate_again(short, tiny.folder, "test", None, None, CPU).metrics
    assert (found.kept, found.epoch, found.to_json()["epoch"]) == (None, 1, 1)
    assert evaluate_again(long, tiny.folder, "test", None, None, CPU, epoch=2).metrics != found.metrics
    with pytest.raises(SettingsError, match=r"--epoch 3: this run has no snapshot of it; there are: 1, 2"):
        evaluate_again(long, tiny.folder, "test", None, None, CPU, epoch=3)
    with pytest.raises(SettingsError, match=r"--epoch 1: .*there are: none"):
        evaluate_again(short, tiny.folder, "test", None, None, CPU, epoch=1)


def test_a_run_of_the_grid_has_weights_where_it_is_the_best(tiny, tmp_path):
    folders, _ = trained(tiny, tmp_path, "baselines", rates=(1e-3, 2e-3))
    (best,) = [folder for folder in folders if (folder / "weights.pt").exists()]
    (other,) = [folder for folder in folders if folder != best]
    assert evaluate_again(best, tiny.folder, "test", None, None, CPU).metrics["samples"] == DEFAULT_SAMPLES
    with pytest.raises(StoreError, match="keeps no weights; selected runs do"):
        evaluate_again(other, tiny.folder, "test", None, None, CPU)


def test_what_cannot_be_evaluated_is_named(tiny, evaluated, strided, tmp_path):
    folder, _ = evaluated
    with pytest.raises(StoreError, match="expected the folder of a run"):
        evaluate_again(tmp_path, tiny.folder, "test", None, None, CPU)
    with pytest.raises(DataError, match=r"expected tiny with sha256|found"):
        evaluate_again(folder, strided.folder, "test", None, None, CPU)
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(StoreError, match="not the settings of a run"):
        evaluate_again(tmp_path, tiny.folder, "test", None, None, CPU)
    store = shutil.copytree(folder.parents[3], tmp_path / "store")
    altered = store / folder.relative_to(folder.parents[3])
    (altered / "weights.pt").write_bytes(b"other weights")
    with pytest.raises(StoreError, match=r"weights.pt: expected sha256"):
        evaluate_again(altered, tiny.folder, "test", None, None, CPU)


def test_a_protocol_that_sets_nothing_aside_has_no_holdout(tiny, tmp_path):
    (folder,), _ = trained(
        tiny,
        tmp_path,
        "seeds",
        data=tiny.settings().data.__class__("tiny", tiny.prepared.sha256, (1, 4, 4), 17, "paper", 0),
    )
    with pytest.raises(SettingsError, match=r"--split holdout: .* use test"):
        evaluate_again(folder, tiny.folder, "holdout", None, None, CPU)


def test_the_verb_prints_both_and_writes_json(tiny, evaluated, tmp_path, capsys, monkeypatch):
    folder, settings = evaluated
    monkeypatch.setenv("SILENT_GRADIENTS_LEASES", str(tmp_path / "leases"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    json_file = tmp_path / "numbers.json"
    assert main(["evaluate", str(folder), "--data", str(tiny.folder), "--samples", "2", "--json", str(json_file)]) == 0
    torch.set_flush_denormal(False)
    shown = capsys.readouterr().out
    document = json.loads(json_file.read_text())
    assert shown.splitlines()[0] == document["run"] == settings.name
    assert "in the store" in shown
    assert f"{document['bpd']:.5g}" in shown
    assert (document["samples"], document["importance_samples"]) == (2, 5)
    assert main(["evaluate", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"silent-gradients evaluate: {tmp_path}: expected the folder of a run")
