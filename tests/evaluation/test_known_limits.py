"""The limits that are printed and kept are those that the closed forms give for the protocol's splits."""

import json
from dataclasses import asdict

import pytest
from rich.console import Console

from silent_gradients.evaluation.limits import Moments, factor_analysis_limit, pca_limit
from silent_study.cli import main
from silent_study.cli.tables import limits_table
from silent_study.data.errors import DataError
from silent_study.evaluation.known_limits import kept_factor_analysis, known_limits
from silent_study.params import resolve
from silent_study.plan.plan import Plan
from silent_study.report import gather
from silent_study.report.gather import _factor_analysis
from silent_study.settings import SettingsError


@pytest.fixture
def splits(tiny):
    return tiny.prepared.split("holdout", 24)


def test_every_model_is_valued_on_both_splits_and_beside_the_oracle(splits):
    train, test = splits.train, splits.report
    best, best_of_test = Moments.of(train, 17).optimal_variance(3), Moments.of(test, 17).optimal_variance(3)
    expected = [
        ("PCA", 0.02, "train", "train", pca_limit(train, train, 17, 3, 0.02)),
        ("PCA", 0.02, "train", "test", pca_limit(train, test, 17, 3, 0.02)),
        ("PCA", 0.02, "test", "test", pca_limit(test, test, 17, 3, 0.02)),
        ("PCA", best, "train", "train", pca_limit(train, train, 17, 3, best)),
        ("PCA", best, "train", "test", pca_limit(train, test, 17, 3, best)),
        ("PCA", best_of_test, "test", "test", pca_limit(test, test, 17, 3, best_of_test)),
        ("factor analysis", None, "train", "train", factor_analysis_limit(train, train, 17, 3)),
        ("factor analysis", None, "train", "test", factor_analysis_limit(train, test, 17, 3)),
        ("factor analysis", None, "test", "test", factor_analysis_limit(test, test, 17, 3)),
    ]
    found = known_limits(splits, 17, 3, 0.02)
    assert [(e.model, e.variance, e.fitted_to, e.valued_on, e.limit) for e in found] == expected
    assert known_limits(splits, 17, 3) == found[3:]


def test_the_table_has_every_number(splits):
    found = known_limits(splits, 17, 3, 0.02)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(limits_table(found, "tiny"))
    lines = capture.get().splitlines()[2:]
    assert len(lines) == 9
    for line, known in zip(lines, found, strict=True):
        assert f" {known.limit.bpd:.4f} " in line
        assert f" {known.limit.kl:.2f} " in line
        assert ("per pixel" in line) == (known.model == "factor analysis")


@pytest.mark.parametrize(("latent_dim", "variance"), [(-1, None), (16, None), (3, 0.0), (3, float("nan"))])
def test_impossible_arguments_are_named(splits, latent_dim, variance):
    with pytest.raises(SettingsError, match="variance: expected" if variance is not None else "latent_dim: expected"):
        known_limits(splits, 17, latent_dim, variance)


def test_what_is_kept_is_computed_once(tiny, splits, tmp_path, monkeypatch):
    run = tiny.settings("learnable/reparameterization")
    expected = asdict(factor_analysis_limit(splits.train, splits.report, 17, 3))
    assert kept_factor_analysis(run, tiny.folder, tmp_path) == expected
    # Read without the data set from then on; any run of the data set and the latent dimension will do.
    other = tiny.settings("learnable/silent-gaussian", seed=1, epochs=7)
    assert kept_factor_analysis(other, tmp_path / "nowhere", tmp_path) == expected
    with pytest.raises(DataError, match="nowhere"):
        kept_factor_analysis(tiny.settings(latent_dim=2), tmp_path / "nowhere", tmp_path)
    (file,) = (tmp_path / "kept" / "limits").iterdir()
    document = json.loads(file.read_text())
    for altered in (json.dumps(document | {"bpd": 0.0}), "[]", "no JSON"):
        file.write_text(altered)
        assert kept_factor_analysis(run, tiny.folder, tmp_path) == expected
    assert list((tmp_path / "kept" / "limits").iterdir()) == [file]


@pytest.fixture
def prepared_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "digits"]) == main(["dequantize", "digits"]) == 0


def test_the_command_prints_and_writes_them(prepared_digits, tmp_path, capsys):
    capsys.readouterr()
    assert main(["limit", "digits", "--latent-dim", "4", "--variance", "0.01", "--json", "limits.json"]) == 0
    output = capsys.readouterr().out
    document = json.loads((tmp_path / "limits.json").read_text())
    assert (document["dataset"], document["protocol"], document["k"]) == ("digits", "holdout", 4)
    assert document["holdout"] == 237
    assert len(document["limits"]) == 9
    assert all(f"{limit['bpd']:.4f}" in output for limit in document["limits"])
    assert main(["limit", "digits", "--latent-dim", "4", "--protocol", "paper"]) == 0
    assert "protocol paper, holdout 0" in capsys.readouterr().out
    assert main(["limit", "digits", "--latent-dim", "64"]) == 1
    assert "limit: latent_dim: expected 0 <= k < 64" in capsys.readouterr().err
    assert main(["limit", "mnist", "--latent-dim", "4", "--folder", "nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_a_gathering_asks_for_the_learnable_experiments_of_gaussian_codes(study, tmp_path, monkeypatch):
    asked = []

    def keep(run, data, results):
        asked.append((run, data))
        return {}

    monkeypatch.setattr(gather, "kept_factor_analysis", keep)
    plan = Plan(resolve({"preset": "study"}, study), tmp_path)
    assert _factor_analysis(plan) == {"digits/learnable": {}}
    ((run, data),) = asked
    assert (run.cell.split("/")[1], run.latent_dim, data.name) == ("learnable", 32, "digits")
    discrete = {"fixed": None, "learnable": {"digits": {"methods": ["reinforce"], "overrides": {"reinforce": {}}}}}
    own = {"preset": "study", "experiments": discrete}
    own["experiments"]["learnable"]["digits"]["overrides"] |= {"reinforce+silent": None}
    assert _factor_analysis(Plan(resolve(own, study), tmp_path)) == {}
