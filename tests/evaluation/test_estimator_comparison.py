"""Estimators compared along a run's training: the numbers are those of a fresh measurement at each snapshot."""

import json
from xml.etree import ElementTree

import pytest
import torch
from rich.console import Console
from tests.tiny import CPU

from silent_gradients.estimators import create
from silent_gradients.evaluation import gradient_variance
from silent_gradients.evaluation.gradient_variance import assess, reference_gradient, settled_state
from silent_study.cli import main
from silent_study.cli.tables import comparison_table
from silent_study.evaluation.estimator_comparison import compare_estimators
from silent_study.settings import EvaluationSettings, SettingsError
from silent_study.store.runs import RunStore
from silent_study.training.build import load_snapshot
from silent_study.training.seeds import generator

EVALUATION = EvaluationSettings(samples=2, variance_images=8, variance_draws=6, reconstructions=1)


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    """A store with a run of each kind; not to be changed."""
    store = RunStore(tmp_path_factory.mktemp("results") / "store")
    for cell in ("fixed/reinforce", "learnable/reinforce", "learnable/reparameterization+silent"):
        settings = tiny.settings(cell, epochs=4, snapshot_epochs=(2, 4), silent={"log_term": "exact"})
        tiny.train_stored(store, settings, evaluation=EVALUATION)
    return store


def folder_of(store, tiny, cell):
    (name,) = (name for name in store.names() if name.startswith(f"tiny/{cell}/"))
    return store.folder(name)


def compare(folder, tiny, asked, **changes):
    numbers = {"draws": 6, "reference_draws": 10, "images": 8, **changes}
    return compare_estimators(folder, tiny.folder, asked, device=CPU, **numbers)


def test_numbers_are_those_of_a_fresh_measurement(tiny, store):
    folder = folder_of(store, tiny, "fixed/reinforce")
    found = compare(folder, tiny, ["reinforce", "silent", "gumbel-softmax:temperature=0.5"])
    settings = tiny.settings("fixed/reinforce", epochs=4, snapshot_epochs=(2, 4))
    data = tiny.load(settings)
    assert found.run == settings.name
    assert [(point.epoch, point.estimator) for point in found.points] == [
        (epoch, name) for epoch in (2, 4) for name in ("reinforce", "silent", "gumbel-softmax:temperature=0.5")
    ]
    x = data.selection[:8]
    evaluation = json.loads((folder / "evaluation.json").read_text())
    for point in found.points:
        path = folder / f"snapshot-{point.epoch}.pt"
        vae, state = load_snapshot(settings, data.mean, data.deviation, path, CPU)
        reference = reference_gradient(vae, x, 10)
        assert point.reference == reference.estimator == "silent"
        if point.estimator == "reinforce":
            # The state of its own training, and the numbers of the run's evaluation.
            estimator = vae.estimator
            (entry,) = (entry for entry in evaluation["gradient_variance"] if entry["epoch"] == point.epoch)
            assert point.batch_mean == entry["estimators"]["reinforce"]["batch_mean"]
        else:
            name, _, temperature = point.estimator.partition(":temperature=")
            estimator, state = create(name, {"temperature": float(temperature)} if temperature else {}), {}
        assert estimator is not None
        expected = assess(vae, estimator, x, state, 6, reference, generator(0, "gradient-variance", CPU))
        assert point.batch_mean == expected.variance.batch_mean
        assert point.per_image_mean == expected.variance.per_image_mean
        assert (point.bias, point.bias_z) == (expected.bias, expected.bias_z)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["points"][1]["batch_mean"] == 0


def test_estimators_that_were_not_trained_with_are_settled_first(tiny, store):
    folder = folder_of(store, tiny, "learnable/reparameterization+silent")
    found = compare(folder, tiny, ["reinforce-per-datum"])
    settings = tiny.settings(
        "learnable/reparameterization+silent", epochs=4, snapshot_epochs=(2, 4), silent={"log_term": "exact"}
    )
    data = tiny.load(settings)
    vae, _ = load_snapshot(settings, data.mean, data.deviation, folder / "snapshot-4.pt", CPU)
    x, estimator = data.selection[:8], create("reinforce-per-datum")
    expected = assess(
        vae,
        estimator,
        x,
        settled_state(vae, estimator, x, generator(0, "gradient-settling", CPU)),
        6,
        reference_gradient(vae, x, 10, generator(0, "gradient-reference", CPU)),
        generator(0, "gradient-variance", CPU),
        index=torch.arange(8),
    )
    assert found.points[1].batch_mean == expected.variance.batch_mean
    assert (found.points[1].bias, found.points[1].bias_z) == (expected.bias, expected.bias_z)
    assert found.points[1].reference == "reparameterization"


def test_all_estimators_that_serve_are_compared(tiny, store, monkeypatch):
    monkeypatch.setattr(gradient_variance, "SETTLING_STEPS", 2)
    fixed = {point.estimator for point in compare(folder_of(store, tiny, "fixed/reinforce"), tiny, None).points}
    # A decoder with a known expectation is its own control.
    assert {"silent", "reinforce", "disarm", "gumbel-softmax", "rloo", "reinforce-silent-baseline"} <= fixed
    assert "reparameterization" not in fixed  # other codes
    folder = folder_of(store, tiny, "learnable/reparameterization+silent")
    learnable = {point.estimator for point in compare(folder, tiny, None).points}
    assert {"reparameterization", "reinforce-silent-baseline", "rloo"} <= learnable
    assert not {"silent", "disarm"} & learnable  # a nonlinear decoder; bits


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["reinforze"], "estimators: .*reinforze"),
        (
            ["reparameterization"],
            "'reparameterization' does not support bernoulli.*; those that serve this run: .*, rloo,",
        ),
        (["gumbel-softmax:temperature=-1"], "estimators: temperature"),
        (["gumbel-softmax:temperature"], "estimators: expected name:option=number"),
        (["rloo:size=3"], "estimators: .*unknown options"),
    ],
)
def test_an_estimator_that_cannot_serve_is_named(tiny, store, asked, message):
    with pytest.raises(SettingsError, match=message):
        compare(folder_of(store, tiny, "fixed/reinforce"), tiny, asked)


def test_an_estimator_without_its_control_is_named(tiny, store):
    with pytest.raises(SettingsError, match=r"estimators: .*control"):
        compare(folder_of(store, tiny, "learnable/reinforce"), tiny, ["reinforce-silent-baseline"])


@pytest.mark.parametrize("number", ["draws", "reference_draws", "images"])
def test_impossible_numbers_are_named(tiny, store, number):
    with pytest.raises(SettingsError, match=f"{number}: expected"):
        compare(folder_of(store, tiny, "fixed/reinforce"), tiny, ["rloo"], **{number: 0})


@pytest.mark.usefixtures("cpu_command")
def test_the_command_prints_and_writes_them(tiny, store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(store, tiny, "fixed/reinforce")
    arguments = ["variance", str(folder), "--data", str(tiny.folder), "--draws", "5", "--images", "4"]
    assert main([*arguments, "--estimators", "silent,reinforce"]) == 0
    output = capsys.readouterr().out
    (numbers,) = (tmp_path / "results" / "variance").glob("*.json")
    document = json.loads(numbers.read_text())
    assert (document["draws"], document["images"], len(document["points"])) == (5, 4, 4)
    assert all(f"{point['batch_mean']:.3g}" in output for point in document["points"])
    plot = numbers.with_suffix(".svg").read_text()
    ElementTree.fromstring(plot)
    assert "not drawn: silent" in plot
    assert "reinforce" in plot
    assert main([*arguments, "--estimators", "reinforze"]) == 1
    assert capsys.readouterr().err.startswith("silent-gradients variance: estimators: estimator: expected one of")


def test_the_table_has_a_row_for_every_point(tiny, store):
    found = compare(folder_of(store, tiny, "fixed/reinforce"), tiny, ["rloo", "disarm"])
    console = Console(width=100)
    with console.capture() as capture:
        console.print(comparison_table(found))
    rows = capture.get().splitlines()[-4:]
    for row, point in zip(rows, found.points, strict=True):
        assert row.split()[:3] == [str(point.epoch), point.estimator, f"{point.batch_mean:.3g}"]
