"""Branches, clones and the cache: whatever is fetched or switched to, no table shows the result of other settings."""

import csv
import hashlib
import json
import os
import re
import shutil

import pytest
from tests.workflow.repository import LITERAL, Repository

pytestmark = pytest.mark.timeout(1200)

NUMBERS = ("metrics.json", "curves", "tables", "selection.json")
"""What has no times and no machine in it, so that it is the same if it is made anew."""


def push(repository):
    """Send everything that is on record to a remote beside the repository."""
    repository.run("dvc", "remote", "add", "--default", "there", f"{repository.root}-remote")
    repository.run("dvc", "push")
    repository.commit("A remote")


def clone_of(repository, cache_type):
    """A clone with the data of its commit, linked to its cache in one of DVC's ways."""
    clone = Repository(repository.root.with_name(f"clone-{cache_type}"))
    repository.git("clone", "--quiet", str(repository.root), str(clone.root))
    clone.run("dvc", "config", "--local", "cache.type", cache_type)
    clone.run("dvc", "pull")
    return clone


def objects(repository):
    """MD5 by name of everything in DVC's cache; the name is the MD5 that it had when it was recorded."""
    return {
        f"{path.parent.name}{path.name.removesuffix('.dir')}": hashlib.md5(path.read_bytes()).hexdigest()
        for path in repository.root.glob(".dvc/cache/files/md5/*/*")
    }


def points(text):
    """Epoch and mean of a curve's file."""
    return [(row["epoch"], row["selection_bpd"]) for row in csv.DictReader(text.splitlines())]


@pytest.mark.parametrize(
    "cache_type",
    ["copy", pytest.param("hardlink", marks=pytest.mark.slow), pytest.param("symlink", marks=pytest.mark.slow)],
)
def test_a_clone_with_its_data_has_nothing_to_do(recorded, cache_type):
    push(recorded)
    clone = clone_of(recorded, cache_type)
    weights = next(clone.results.glob("store/*/*/*/*/weights.pt"))
    assert (weights.is_symlink(), weights.stat().st_nlink > 1) == (cache_type == "symlink", cache_type == "hardlink")
    clone.check_nothing_to_do()
    assert not (clone.root / "data" / "raw").exists()

    for path in clone.git("ls-files").splitlines():
        os.utime(clone.root / path)
    clone.check_nothing_to_do()


@pytest.mark.slow
@pytest.mark.parametrize("cache_type", ["hardlink", "symlink"])
def test_a_run_in_a_linked_clone_leaves_the_cache_alone(recorded, cache_type):
    push(recorded)
    clone = clone_of(recorded, cache_type)
    before = objects(clone)

    # Evaluates every selected run again and trains others.
    clone.configure(
        evaluation={"samples": 3}, experiments={"fixed": {"digits": {"grid": {"learning_rate": [0.001, 0.003, 0.03]}}}}
    )
    clone.run(*LITERAL)
    clone.run("snakemake", "--forcerun", "prepare", "dequantize", "--", "data")

    assert objects(clone) == before
    assert all(name == digest for name, digest in before.items())


@pytest.mark.slow
def test_settings_of_another_branch_give_its_results_whatever_snakemake_remembers(recorded, tmp_path):
    push(recorded)
    whole, main = recorded.contents("."), recorded.contents(*NUMBERS)
    longer = {"experiments": {"learnable": {"digits": {"epochs": 3}}}}
    recorded.git("checkout", "--quiet", "-b", "longer")
    recorded.configure(**longer)
    recorded.run("dvc", "repro")
    recorded.commit("One more epoch")
    theirs = recorded.contents(*NUMBERS)
    assert theirs["metrics.json"] != main["metrics.json"]

    recorded.git("checkout", "--quiet", "main")
    recorded.run("dvc", "checkout")
    assert recorded.contents(".") == whole
    forgetful = recorded.copy(tmp_path / "forgetful")
    shutil.rmtree(forgetful.root / ".snakemake")
    for repository in (recorded, forgetful, clone_of(recorded, "copy")):
        repository.check_nothing_to_do()
        repository.configure(**longer)
        repository.run(*LITERAL)
        assert repository.contents(*NUMBERS) == theirs
        repository.configure()
        repository.run(*LITERAL)
        assert repository.contents(*NUMBERS) == main


@pytest.mark.slow
def test_a_run_that_another_branch_recorded_is_taken_and_not_trained(recorded):
    main = recorded.runs()
    recorded.git("checkout", "--quiet", "-b", "longer")
    recorded.configure(experiments={"learnable": {"digits": {"epochs": 3}}})
    recorded.run("dvc", "repro")
    recorded.commit("One more epoch")
    theirs = {name: (recorded.results / "store" / name / "provenance.json").read_bytes() for name in recorded.runs()}
    recorded.git("checkout", "--quiet", "main")
    recorded.run("dvc", "checkout")
    assert recorded.runs() == main

    recorded.configure(experiments={"learnable": {"digits": {"epochs": 3}}})
    output = recorded.run(*LITERAL)

    assert re.search(r"\d runs of longer taken as DVC recorded them", output)
    assert recorded.runs() >= recorded.planned()
    for name in recorded.planned():
        assert (recorded.results / "store" / name / "provenance.json").read_bytes() == theirs[name]
    # A run that is lost altogether, of the branch itself.
    lost = recorded.run_folder("digits/fixed/reparameterization", seed=1)
    shutil.rmtree(lost)
    recorded.run(*LITERAL)
    assert (lost / "provenance.json").read_bytes() == theirs[lost.relative_to(recorded.results / "store").as_posix()]


@pytest.mark.slow
def test_git_alone_does_not_bring_the_results_of_a_branch_into_another(recorded):
    main = recorded.contents(*NUMBERS)
    recorded.git("checkout", "--quiet", "-b", "other")
    # A run of the same name with another evaluation, and other runs.
    recorded.configure(evaluation={"samples": 3}, experiments={"fixed": {"digits": {"epochs": 3}}})
    recorded.run("dvc", "repro")
    recorded.commit("Other settings")
    other = recorded.contents(*NUMBERS)

    for branch, expected in (("main", main), ("other", other)):
        recorded.git("checkout", "--quiet", branch)
        recorded.run(*LITERAL)
        assert recorded.contents(*NUMBERS) == expected
        assert recorded.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_a_plot_per_experiment_has_the_curves_of_all_methods_of_both_branches(recorded):
    names = {f"results/curves/{cell.group}.csv" for cell in recorded.plan.cells()}
    recorded.git("checkout", "--quiet", "-b", "no-guide")
    recorded.configure(
        experiments={"learnable": {"digits": {"epochs": 3, "methods": ["reparameterization"]}}},
    )
    recorded.run("dvc", "repro")
    recorded.commit("One more epoch, one method less")

    compared = ("dvc", "plots", "diff", "main", "no-guide", "--targets", "results/curves")
    plots = json.loads(recorded.run(*compared, "--json"))["data"]

    assert set(plots) == names
    for name, (plot,) in plots.items():
        present = [branch for branch in ("main", "no-guide") if recorded.git("ls-tree", branch, name)]
        assert plot["revisions"] == present
        for branch in present:
            drawn = [row for row in plot["content"]["data"]["values"] if row["rev"] == branch]
            written = points(recorded.git("show", f"{branch}:{name}"))
            assert [(row["epoch"], row["selection_bpd"]) for row in drawn] == written
    page = recorded.root / "dvc_plots" / "index.html"
    recorded.run(*compared)
    assert all(name in page.read_text() for name in names)
    # Readable without a network.
    (script,) = re.findall(r'<script src="([^:"]*)"', page.read_text())
    assert "vegaEmbed" in (page.parent / script).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["results/store", "results/packs", "data/prepared"])
def test_what_is_deleted_comes_back_from_the_cache(recorded, folder):
    shutil.rmtree(recorded.root / folder)
    recorded.run("dvc", "checkout")
    recorded.check_nothing_to_do()


@pytest.mark.slow
def test_an_abandoned_setting_goes_and_every_kept_branch_stays_whole(recorded):
    main = recorded.runs()
    recorded.git("checkout", "--quiet", "-b", "abandoned")
    recorded.set_rates("fixed", [0.003, 0.05])
    recorded.run("dvc", "repro")
    recorded.commit("Too fast")
    abandoned = recorded.planned() - main
    assert abandoned

    # The store that is recorded here has the runs of all three.
    recorded.git("checkout", "--quiet", "-b", "rates", "main")
    recorded.set_rates("learnable", [0.003, 0.02])
    recorded.run("dvc", "repro")
    recorded.commit("Other rates")
    rates = recorded.planned()
    assert recorded.runs() == main | rates | abandoned
    keep = ("silent-gradients", "prune", "--keep", "main")
    assert "needed by none: 0 runs" in recorded.run(*keep, "--keep", "abandoned")

    contents = recorded.contents(".")
    assert f"needed by none: {len(abandoned)} runs" in recorded.run(*keep)
    assert recorded.contents(".") == contents
    output = recorded.run(*keep, "--delete")
    assert recorded.runs() == main | rates
    assert "Nothing to be done" in recorded.run(*LITERAL)

    # What it prints for DVC.
    recorded.git("branch", "--delete", "--force", "abandoned")
    lines = [line.strip() for line in output.splitlines() if line.startswith("  ")]
    repro, commit, collect = (line for line in lines if line.startswith(("dvc ", "git commit")))
    recorded.run("sh", "-c", repro)
    recorded.run("sh", "-c", commit)
    assert "Removed" in recorded.run("sh", "-c", f"{collect} --force")
    assert "up to date" in recorded.run("dvc", "status")

    for branch, runs in {"main": main, "rates": main | rates}.items():
        recorded.git("checkout", "--quiet", branch)
        recorded.run("dvc", "checkout")
        assert recorded.runs() == runs
        assert "Nothing to be done" in recorded.run(*LITERAL)
        assert "up to date" in recorded.run("dvc", "status")
        assert "needed by none: 0 runs" in recorded.run(*keep, "--delete")
