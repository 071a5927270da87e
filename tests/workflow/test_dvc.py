"""DVC over Snakemake: what `dvc repro` runs and records, and what a comparison of branches shows."""

import json
import re

import pytest
from tests.workflow.repository import LITERAL, LONG, TINY, Repository

pytestmark = pytest.mark.timeout(1200)

STAGES = ("data", "grid", "train", "report")


def curve_times(repository):
    """When each run was trained."""
    return {path: time for path, time in repository.times().items() if path.endswith("/curve.jsonl")}


def metrics_diff(repository, revision):
    """Changed values by name."""
    files = json.loads(repository.run("dvc", "metrics", "diff", revision, "--json"))
    assert list(files) == ["results/metrics.json"]
    return files["results/metrics.json"]


def test_an_edit_runs_what_it_touches_and_branches_compare_by_cell(repository):
    curves = curve_times(repository)
    # Made by Snakemake alone so far.
    repository.run("dvc", "commit", "--force")
    repository.commit("Recorded by DVC")
    output = repository.run("dvc", "repro")
    for stage in STAGES:
        assert f"Stage '{stage}' didn't change, skipping" in output

    repository.git("checkout", "--quiet", "-b", "samples")
    repository.configure(evaluation={"samples": 3})
    output = repository.run("dvc", "repro")
    repository.commit("More samples")

    # Evaluated again, not trained again.
    assert sorted(re.findall(r"^\[\d/\d\] (\w+ digits/\w+): 4 runs", output, re.MULTILINE)) == [
        "seeds digits/fixed",
        "seeds digits/learnable",
    ]
    assert "baselines digits/" not in output
    assert curve_times(repository) == curves
    changed = metrics_diff(repository, "main")
    assert "digits.learnable.reparameterization.bpd" in changed
    assert "digits.fixed.reparameterization.mse" in changed
    assert not re.search(r"[0-9a-f]{10}", " ".join(changed))
    assert "up to date" in repository.run("dvc", "status")
    # Nothing that is large or made anew each time has got into git.
    tracked = set(repository.git("ls-files", "results", "data").split())
    assert tracked == {"results/metrics.json", "results/curves.csv"}


@pytest.mark.slow
def test_from_a_clone_to_a_record_and_back_to_another_revision(tmp_path):
    repository = Repository.make(tmp_path / "repository", tiny=TINY)
    repository.run("dvc", "repro")
    repository.commit("Recorded by DVC")
    main = repository.contents("metrics.json", "report.html", "tables")
    assert "up to date" in repository.run("dvc", "status")

    repository.git("checkout", "--quiet", "-b", "rates")
    repository.set_rates("fixed", [0.001, 0.003, 0.03])
    before = repository.runs()
    repository.run("dvc", "repro")
    repository.commit("One more rate")
    assert all("lr=0.03," in name for name in repository.runs() - before)
    assert repository.runs() == before | repository.planned()

    repository.git("checkout", "--quiet", "main")
    repository.run("dvc", "checkout")
    assert repository.contents("metrics.json", "report.html", "tables") == main
    assert repository.runs() == before
    assert "Nothing to be done" in repository.run(*LITERAL)
    assert "up to date" in repository.run("dvc", "status")


@pytest.mark.slow
def test_an_edit_run_by_snakemake_is_recorded_afterwards(repository):
    repository.run("dvc", "repro")
    repository.commit("Recorded by DVC")

    repository.set_rates("learnable", [0.003])
    repository.run(*LITERAL)
    repository.run("dvc", "commit", "--force")

    assert "up to date" in repository.run("dvc", "status")
    output = repository.run("dvc", "repro")
    assert output.count("didn't change, skipping") == len(STAGES)


@pytest.mark.slow
def test_a_round_without_runs_does_not_stop_it(tmp_path):
    short = LONG | {"experiments": {"fixed": {"digits": LONG["experiments"]["fixed"]["digits"] | {"epochs": 2}}}}
    repository = Repository.make(tmp_path / "repository", short=short)
    repository.run("dvc", "repro")
    assert "up to date" in repository.run("dvc", "status")


@pytest.mark.slow
def test_a_lost_run_does_not_pass_for_a_record(repository):
    repository.run("dvc", "repro")
    record = repository.results.joinpath("store", min(repository.runs()), "record.json")
    record.unlink()
    assert "no finished run in" in repository.fail("dvc", "repro")
