"""DVC over Snakemake: what an edit runs again, and what is recorded."""

import json
import re
from pathlib import Path

import pytest
import yaml
from tests.workflow.repository import LITERAL, LONG, SEEDS, Repository

from silent_study.training import checkpoint

pytestmark = pytest.mark.timeout(1200)

STAGES = ("data", "grid", "train", "report")


def files_on_record(repository, folder):
    """What DVC has recorded of a folder."""
    stages = yaml.safe_load((repository.root / "dvc.lock").read_text())["stages"].values()
    (digest,) = {out["md5"] for stage in stages for out in stage["outs"] if out["path"] == folder}
    cache = repository.root / ".dvc" / "cache" / "files" / "md5"
    return {entry["relpath"] for entry in json.loads((cache / digest[:2] / digest[2:]).read_text())}


def test_an_edit_runs_what_it_touches_and_branches_compare_by_cell(recorded):
    curves = recorded.curve_times()
    # Made by Snakemake alone so far.
    output = recorded.run("dvc", "repro")
    for stage in STAGES:
        assert f"Stage '{stage}' didn't change, skipping" in output

    recorded.git("checkout", "--quiet", "-b", "samples")
    recorded.configure(evaluation={"samples": 3})
    output = recorded.run("dvc", "repro")
    recorded.commit("More samples")

    # Evaluated again, not trained again.
    assert sorted(re.findall(r"^\[\d/\d\] (\w+ digits/\w+): 4 runs", output, re.MULTILINE)) == [
        "seeds digits/fixed",
        "seeds digits/learnable",
    ]
    assert "baselines digits/" not in output
    assert recorded.curve_times() == curves
    changed = json.loads(recorded.run("dvc", "metrics", "diff", "main", "--json"))
    assert "bpd" in changed["results/metrics/digits/learnable/reparameterization.json"]
    assert "mse" in changed["results/metrics/digits/fixed/reparameterization.json"]
    assert not re.search(r"[0-9a-f]{10}", " ".join(changed))
    assert json.loads(recorded.run("dvc", "params", "diff", "main", "--json")) == {
        "params.yaml": {"evaluation.samples": {"old": None, "new": 3}}
    }
    assert "up to date" in recorded.run("dvc", "status")
    # Nothing that is large or made anew each time has got into git.
    tracked = set(recorded.git("ls-files", "results", "data").split())
    plots = {f"results/curves/{cell.group}.csv" for cell in recorded.plan.cells()}
    metrics = {f"results/metrics/{cell.name}.json" for cell in recorded.plan.cells()}
    assert tracked == {"results/metrics.json"} | metrics | plots
    # A terminal shows the metrics, a line for each cell, and the changes.
    shown = recorded.run("dvc", "metrics", "show").splitlines()
    assert {line.split()[0] for line in shown[1:]} == metrics
    assert all(len(line) <= 140 for line in [*shown, *recorded.run("dvc", "metrics", "diff", "main").splitlines()])


def test_dvc_contacts_nobody_unasked(finished):
    for option in ("analytics", "check_update"):
        assert finished.run("dvc", "config", "--project", f"core.{option}") == "false\n"


@pytest.mark.slow
def test_every_run_is_on_record_with_what_a_report_can_ask_for(recorded):
    metrics = {"record.json", "settings.json", "curve.jsonl", "result.json", "provenance.json", "code.json"}
    whole = metrics | {"weights.pt", "snapshot-2.pt", "evaluation.json", "reconstructions.npz"}
    selected = {
        recorded.run_folder(cell, learning_rate=chosen["point"]["learning_rate"], seed=seed)
        for cell, chosen in recorded.selection().items()
        for seed in SEEDS
    }
    store = recorded.results / "store"
    assert files_on_record(recorded, "results/store") == {
        f"{name}/{file}" for name in recorded.runs() for file in (whole if store / name in selected else metrics)
    }


@pytest.mark.slow
def test_a_run_in_training_and_a_lock_are_not_on_record_and_stay(recorded):
    before = files_on_record(recorded, "results/store")
    assert any(recorded.results.glob("store/.locks/*"))
    folder = recorded.results / "store" / "digits" / "fixed" / "reinforce" / "lr=0.001,seed=0-0123456789ab.partial"
    folder.mkdir(parents=True)
    files = ("curve.jsonl", checkpoint.CURRENT, checkpoint.PREVIOUS)
    for file in files:
        (folder / file).write_text("of an interrupted training")
    for name in ("store/digits/fixed/.record.json.a1b2.tmp", "curves/digits/.fixed.csv.c3d4.tmp"):
        (recorded.results / name).write_text("of a file that was being written")

    assert "up to date" in recorded.run("dvc", "status")
    recorded.run("dvc", "commit", "--force")
    assert recorded.git("status", "--porcelain") == ""

    recorded.configure(experiments={"fixed": {"digits": {"methods": ["reparameterization", "reinforce"]}}})
    recorded.run("dvc", "repro")
    new = {Path(file).parent for file in files_on_record(recorded, "results/store") - before}
    assert new == {Path(name) for name in recorded.runs() if "/reinforce/" in name}

    # This revision lacks the folder's other runs.
    recorded.git("restore", ".")
    recorded.run("dvc", "checkout")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert {path.name for path in folder.iterdir()} == set(files)


@pytest.mark.slow
def test_an_edit_run_by_snakemake_is_recorded_afterwards(recorded):
    recorded.set_rates("learnable", [0.003])
    recorded.run(*LITERAL)
    recorded.run("dvc", "commit", "--force")

    assert "up to date" in recorded.run("dvc", "status")
    output = recorded.run("dvc", "repro")
    assert output.count("didn't change, skipping") == len(STAGES)


@pytest.mark.slow
def test_an_experiment_in_the_workspace_and_one_beside_it(recorded):
    files, metrics, runs = recorded.contents("."), recorded.metrics(), recorded.runs()

    # params.yaml has neither key: hence the plus.
    recorded.run("dvc", "exp", "run", "--name=one-seed", "--set-param=+seeds=[0]")
    one_seed = recorded.metrics()
    assert one_seed["digits"]["fixed"]["reparameterization"]["seeds"] == 1
    assert recorded.runs() == runs
    recorded.check_nothing_to_do()

    recorded.git("restore", ".")
    recorded.run("dvc", "checkout")
    assert recorded.contents(".") == files
    recorded.check_nothing_to_do()

    edit = "--set-param=+experiments.fixed.digits.grid.learning_rate=[0.03]"
    recorded.run("dvc", "exp", "run", "--temp", "--name=one-rate", edit)
    assert recorded.git("status", "--porcelain") == ""
    assert recorded.contents(".") == files
    recorded.check_nothing_to_do()

    recorded.run("dvc", "exp", "apply", "one-rate")
    one_rate = recorded.metrics()
    assert all("/fixed/" in name and "lr=0.03," in name for name in recorded.runs() - runs)
    assert recorded.runs() == runs | recorded.planned()
    recorded.check_nothing_to_do()

    _, main = json.loads(recorded.run("dvc", "exp", "show", "--json"))
    shown = {"main": main["data"]["metrics"]}
    shown |= {experiment["name"]: experiment["revs"][0]["data"]["metrics"] for experiment in main["experiments"]}
    for name, tree in {"main": metrics, "one-seed": one_seed, "one-rate": one_rate}.items():
        assert {file: each["data"] for file, each in shown[name].items()} == {
            f"results/metrics/{cell.name}.json": tree[cell.dataset][cell.experiment][cell.method.name]
            for cell in recorded.plan.cells()
        }


@pytest.mark.slow
def test_a_round_without_runs_does_not_stop_it(tmp_path):
    short = LONG | {"experiments": {"fixed": {"digits": LONG["experiments"]["fixed"]["digits"] | {"epochs": 2}}}}
    repository = Repository.make(tmp_path / "repository", short=short)
    repository.run("dvc", "repro")
    assert "up to date" in repository.run("dvc", "status")
