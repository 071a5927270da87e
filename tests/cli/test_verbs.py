"""The command line: verbs, one-line errors, exit codes."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.tiny import CPU, write_study

from silent_study import params
from silent_study.cli import main
from silent_study.jobs.pack import TrainingOptions, run_pack
from silent_study.plan.plan import Plan
from silent_study.store.runs import RunStore, write_json

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path, grid={"learning_rate": [0.001, 0.002, 0.004]})
    return tmp_path


def test_plan_counts_the_runs(repository, capsys):
    assert main(["plan"]) == 0
    output = capsys.readouterr().out
    assert "baselines: 6 runs" in output
    assert "digits/fixed/silent-gaussian: 3 runs of 2 epochs" in output


@pytest.mark.parametrize("spelling", ["as Snakemake's", "as JSON", "in files", "in place of the file"])
def test_settings_of_one_call_lie_over_the_file(repository, capsys, spelling):
    (repository / "params.yaml").write_text("preset: small\nseeds: [0, 1, 2]\n")
    (repository / "one.yaml").write_text("protocol: paper\nexperiments: {fixed: {digits: {epochs: 2}}}\n")
    (repository / "other.yaml").write_text("experiments: {fixed: {digits: {epochs: 3}}}\n")
    options = {
        "as Snakemake's": ["--config", "protocol=paper", "experiments={fixed: {digits: {epochs: 3, holdout: null}}}"],
        "as JSON": ["--config", '{"protocol": "paper", "experiments": {"fixed": {"digits": {"epochs": 3}}}}'],
        "in files": ["--configfile", "one.yaml", "other.yaml"],
        "in place of the file": ["--settings", '{"preset": "small", "protocol": "paper", "seeds": [5]}'],
    }[spelling]
    assert main(["plan", *options]) == 0
    seeds = [5] if spelling == "in place of the file" else [0, 1, 2]
    assert capsys.readouterr().out.startswith(f"preset small, protocol paper, seeds {seeds}\n")


def test_plan_names_the_overrides_of_the_preset_that_still_apply(repository, capsys):
    preset = json.loads((repository / "presets/small.yaml").read_text())
    override = {"epochs": 4, "grid": {"learning_rate": [0.1]}}
    preset["experiments"]["fixed"]["digits"]["overrides"] = {"reparameterization": override}
    (repository / "presets/small.yaml").write_text(json.dumps(preset))
    assert main(["plan"]) == 0
    assert "still apply" not in capsys.readouterr().out
    assert main(["plan", "--config", "experiments={fixed: {digits: {epochs: 3}}}"]) == 0
    assert capsys.readouterr().out.endswith(
        "in the sections that the settings change, these overrides of preset small still apply:\n"
        "  experiments.fixed.digits.overrides.reparameterization.grid.learning_rate: [0.1]\n"
    )


def test_verbs_work_below_the_folder_of_the_study(repository, capsys, monkeypatch):
    (repository / "Snakefile").touch()
    (repository / "docs").mkdir()
    monkeypatch.chdir(repository / "docs")
    assert main(["prepare", "digits"]) == 0
    assert main(["download", "digits", "--record", "digits.json"]) == 0
    assert main(["plan"]) == 0
    assert sorted(path.name for path in repository.iterdir()) == ["Snakefile", "data", "docs", "params.yaml", "presets"]
    assert [path.name for path in Path.cwd().iterdir()] == ["digits.json"]
    (repository / "Snakefile").unlink()
    assert main(["plan"]) == 1
    assert "params.yaml: cannot be read" in capsys.readouterr().err


def test_a_path_may_begin_with_the_home_folder(repository, monkeypatch):
    monkeypatch.setenv("HOME", str(repository / "home"))
    assert main(["download", "digits", "--record", "~/digits.json"]) == 0
    assert (repository / "home/digits.json").exists()
    monkeypatch.setenv("SILENT_GRADIENTS_MIRROR", "~/mirror")
    assert main(["prepare", "mnist"]) == 1


def test_data_are_obtained_prepared_and_dequantized(repository, capsys):
    assert main(["download", "digits", "--record", "data/raw/digits.json"]) == 0
    assert "digits: 0 raw files" in capsys.readouterr().out
    assert json.loads((repository / "data/raw/digits.json").read_text())["files"] == {}
    assert main(["prepare", "digits"]) == 0
    assert "1437 training and 360 test images" in capsys.readouterr().out
    assert np.load(repository / "data/prepared/digits/train.npy").shape == (1437, 1, 8, 8)
    assert main(["dequantize", "digits"]) == 0
    assert "dequantization noise of 360 images" in capsys.readouterr().out
    assert np.load(repository / "data/prepared/digits/noise.npy").shape == (360, 1, 8, 8)


@pytest.mark.parametrize("verb", ["download", "prepare"])
def test_the_settings_name_the_mirror_before_the_environment_does(repository, capsys, monkeypatch, verb):
    monkeypatch.setenv("SILENT_GRADIENTS_MIRROR", "nowhere")
    preset = repository / "presets" / "small.yaml"
    preset.write_text(json.dumps({**json.loads(preset.read_text()), "data": {"mirror": "of-the-preset"}}))
    own = json.dumps({"preset": "small", "data": {"mirror": "of-the-call"}})
    for mirror, options in {
        "of-the-preset": [],
        "of-the-call": ["--config", own],
        "elsewhere": ["--config", own, "--mirror", "elsewhere"],
        "nowhere": ["--config", json.dumps({"preset": "small", "data": {"mirror": None}})],
    }.items():
        assert main([verb, "mnist", *options]) == 1
        assert capsys.readouterr().err == f"silent-gradients {verb}: mirror {mirror!r}: there is no such folder\n"
    assert main([verb, "mnist", "--config", json.dumps({"data": {"mirror": 3}})]) == 1
    assert "data.mirror: " in capsys.readouterr().err


def test_no_number_of_a_table_is_cut_in_a_pipe(repository, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["limit", "digits", "--latent-dim", "32", "--variance", "0.01", "--json", "limit.json"]) == 0
    said = capsys.readouterr().out
    limits = json.loads((repository / "limit.json").read_text())["limits"]
    assert all(f"{limit['expected_squared_error']:.3f}" in said for limit in limits)
    assert "…" not in said


def test_accepting_nothing_records_nothing(repository, capsys):
    assert main(["accept", "--reason", "none"]) == 0
    assert capsys.readouterr().out.startswith("nothing to accept")
    assert not (repository / "results").exists()


def test_a_limit_is_of_the_data_that_the_settings_name(repository, capsys):
    """The verb prepares what is missing or of other images; it compares a folder that it is given with the settings."""

    def limit(*options):
        assert main(["limit", "mine", "--latent-dim", "2", "--holdout", "2", "--json", "limit.json", *options]) == 0
        return json.loads((repository / "limit.json").read_text())["limits"]

    images = np.random.default_rng(0).integers(0, 256, (2, 40, 4, 4), dtype=np.uint8)
    for name, array in zip(("mine", "yours"), images, strict=True):
        np.save(repository / f"{name}.npy", array)
        (repository / "params.yaml").write_text(f"preset: small\ndata: {{sets: {{mine: {{path: {name}.npy}}}}}}\n")
        assert main(["limit", "mine", "--latent-dim", "2", "--holdout", "2", "--json", f"{name}.json"]) == 0
        fresh = repository / f"fresh-{name}"
        assert main(["prepare", "mine", "--folder", str(fresh)]) == main(["dequantize", "mine", "--folder", str(fresh)])
        assert json.loads((repository / f"{name}.json").read_text())["limits"] == limit("--folder", str(fresh))
    mine, yours = (json.loads((repository / f"{name}.json").read_text())["limits"] for name in ("mine", "yours"))
    assert mine != yours
    capsys.readouterr()
    assert main(["limit", "mine", "--latent-dim", "2", "--folder", "fresh-mine"]) == 1
    assert "fresh-mine: expected mine with sha256" in capsys.readouterr().err


def documented(page):
    """The commands in the blocks of a page, and of its tables where they need no run."""
    text = (ROOT / page).read_text()
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    blocks = "".join(block for language, block in fenced if not language)
    found = [
        *re.findall(r"^silent-gradients .*", blocks, re.MULTILINE),
        *re.findall(r"`(silent-gradients [^`]*)`", text),
    ]
    return [line for line in found if not re.search("<run>|--watch|gradients report", line)]


@pytest.mark.parametrize(
    ("page", "verbs"),
    [
        ("README.md", {"plan", "pace"}),
        ("docs/quickstart.md", {"plan", "pace", "retrain", "limit", "prune"}),
        ("docs/data.md", {"prepare", "limit"}),
    ],
)
def test_documented_commands_run_in_their_order_in_a_fresh_clone(repository, monkeypatch, page, verbs):
    monkeypatch.setenv("SILENT_GRADIENTS_LEASES", str(repository / "leases"))
    (repository / "my-faces").mkdir()
    for number, image in enumerate(np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)):
        Image.fromarray(image).save(repository / "my-faces" / f"{number}.png")
    (repository / "params.yaml").write_text("preset: small\ndata: {sets: {faces: {path: my-faces}}}\n")
    words = [shlex.split(line, comments=True)[1:] for line in documented(page)]
    assert {verb for verb, *_ in words} == verbs
    for command in words:
        assert main([*command, *(["--rounds", "1"] if command[0] == "pace" else [])]) == 0


def test_own_images_are_known_by_the_name_that_the_settings_give_them(repository, capsys):
    np.save(repository / "mine.npy", np.zeros((20, 4, 4), dtype=np.uint8))
    settings = {"preset": "small", "data": {"sets": {"mine": {"path": "mine.npy"}}}}
    (repository / "params.yaml").write_text(json.dumps(settings))
    assert main(["prepare", "mine"]) == 0
    assert "18 training and 2 test images in data/prepared/mine" in capsys.readouterr().out
    settings["data"]["sets"]["mine"]["test"] = 0.25
    assert main(["prepare", "mine", "--config", json.dumps(settings)]) == 0
    assert main(["dequantize", "mine", "--config", json.dumps(settings)]) == 0
    assert "noise of 5 images" in capsys.readouterr().out
    (repository / "mine.npy").unlink()
    (repository / "params.yaml").rename(repository / "own.yaml")
    assert main(["prepare", "mine", "--configfile", "own.yaml"]) == 1
    assert capsys.readouterr().err == (
        "silent-gradients prepare: data.sets.mine: path 'mine.npy': there is no such folder or file\n"
    )


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["select", "baselines", "digits/fixed"], "results/packs/baselines/digits/fixed"),
        (["gather"], "results/selections/digits/fixed/baselines-"),
    ],
)
def test_what_is_missing_before_a_step_is_named(repository, capsys, words, missing):
    assert main(words) == 1
    assert re.search(rf"{missing}.*snakemake", capsys.readouterr().err, re.DOTALL)


def test_select_says_what_it_selected(repository, capsys, monkeypatch):
    chosen = {"status": "selected", "run": "a", "configurations": 3, "diverged": 0}
    point = {"learning_rate": 0.002, "mean_rate": None}
    cells = {
        "digits/fixed/silent-gaussian": {**chosen, "point": point, "bpd": 3.25},
        "digits/fixed/reparameterization": {**chosen, "status": "diverged", "point": point, "bpd": None},
    }
    monkeypatch.setattr("silent_study.plan.selection.select", lambda *_: {"cells": cells})
    assert main(["select", "baselines", "digits/fixed"]) == 0
    (path,) = repository.glob("results/selections/digits/fixed/baselines-*.json")
    assert capsys.readouterr().out.splitlines() == [
        "digits/fixed/silent-gaussian: learning_rate 0.002, mean_rate null; 3.2500 bits/dim, the best of 3",
        "digits/fixed/reparameterization: learning_rate 0.002, mean_rate null; all 3 diverged",
        f"selection: {path.relative_to(repository)}",
    ]


def test_a_study_of_two_layers_comes_to_its_report(tmp_path, monkeypatch, capsys):
    """Both activations and both kinds of variances, without Snakemake; there is no closed-form limit."""
    monkeypatch.chdir(tmp_path)
    methods = ["silent-gaussian", "reparameterization", "silent-bernoulli", "gumbel-softmax"]
    changed = {"silent-gaussian": {"activation": "cosine"}, "gumbel-softmax": {"pixel_variances": "learned"}}
    evaluation = {"samples": 1, "variance_images": 4, "variance_draws": 2, "reconstructions": 1}
    section = {"epochs": 1, "hidden_units": 3, "snapshot_epochs": [1], "methods": methods, "overrides": changed}
    write_study(tmp_path, "two-layer", {"evaluation": evaluation}, **section)
    assert main(["prepare", "digits"]) == main(["dequantize", "digits"]) == 0
    plan, store = Plan(params.load(tmp_path / "params.yaml")), RunStore(Path("results/store"))
    for round_ in ("baselines", "seeds"):
        for pack in plan.packs(round_, plan.selections(round_)):
            found = run_pack(pack, store, Path("data/prepared/digits"), CPU, TrainingOptions(stack=2))
            write_json(plan.manifest(pack), found)
        if round_ == "baselines":
            assert main(["select", "baselines", "digits/two-layer"]) == 0
    assert main(["plan"]) == main(["status"]) == main(["gather"]) == 0
    rows = pd.read_csv("results/tables/two-layer-decoder.csv").query("metric == 'bpd'").set_index("method")
    assert set(rows.index) == set(methods)
    assert (rows["seeds"] == 2).all()
    assert rows["closed_form"].isna().all()
    variance = pd.read_csv("results/tables/two-layer-gradient-variance.csv").set_index("method")["batch_mean"]
    assert (variance > 0).to_dict() == {method: not method.startswith("silent") for method in methods}
    assert "two-layer decoder" in Path("results/report.html").read_text()
    # What is printed of the data is read through the same door as by trainings.
    manifest = Path("data/prepared/digits/manifest.json")
    manifest.write_text(manifest.read_text().replace("Digits 8x8", "Digits"))
    capsys.readouterr()
    assert main(["gather"]) == 1
    assert f"{manifest}: expected a manifest as it was written" in capsys.readouterr().err


def test_without_a_verb_it_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("usage: silent-gradients ")
    assert "exit codes:" in shown


def test_where_there_is_no_browser_the_address_is_told(repository, capsys, monkeypatch):
    page = repository / "results" / "report.html"
    page.parent.mkdir()
    page.touch()
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    assert main(["report", "--open"]) == 0
    assert f"open this address in one: file://{page}\n" in capsys.readouterr().out
