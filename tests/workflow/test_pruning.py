"""Pruning between branches: what stays is whole for Snakemake and for DVC, what goes is gone."""

import shutil

import pytest
from tests.workflow.repository import LITERAL

NOTHING = "Nothing to be done"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_abandoned_setting_goes_and_every_branch_stays_whole(repository):
    repository.run("dvc", "commit", "--force")
    repository.commit("Recorded by DVC")
    main = repository.runs()

    repository.git("checkout", "--quiet", "-b", "abandoned")
    repository.set_rates("fixed", [0.003, 0.05])
    repository.run("dvc", "repro")
    repository.commit("Too fast")
    abandoned = repository.planned() - main
    assert abandoned

    # The store that is recorded here has the runs of all three.
    repository.git("checkout", "--quiet", "-b", "rates", "main")
    repository.set_rates("learnable", [0.003, 0.02])
    repository.run("dvc", "repro")
    repository.commit("Other rates")
    rates = repository.planned()
    assert repository.runs() == main | rates | abandoned
    assert "asked for by none: 0 runs" in repository.run("silent-gradients", "prune")
    repository.git("branch", "--delete", "--force", "abandoned")

    contents = repository.contents(".")
    assert f"asked for by none: {len(abandoned)} runs" in repository.run("silent-gradients", "prune")
    assert repository.contents(".") == contents
    output = repository.run("silent-gradients", "prune", "--delete")
    assert repository.runs() == main | rates
    assert NOTHING in repository.run(*LITERAL)

    # What it says to type.
    lines = [line.strip() for line in output.splitlines() if line.startswith("  ")]
    repro, commit, collect = (line for line in lines if line.startswith(("dvc ", "git ")))
    repository.run("sh", "-c", repro)
    repository.run("sh", "-c", commit)
    assert "Removed" in repository.run("sh", "-c", f"{collect} --force")
    assert "up to date" in repository.run("dvc", "status")

    for branch, runs in {"main": main, "rates": main | rates}.items():
        repository.git("checkout", "--quiet", branch)
        repository.run("dvc", "checkout")
        assert repository.runs() == runs
        assert NOTHING in repository.run(*LITERAL)
        assert "up to date" in repository.run("dvc", "status")
        assert "asked for by none: 0 runs" in repository.run("silent-gradients", "prune", "--delete")


@pytest.mark.slow
def test_what_dvc_recorded_is_read_from_its_cache_or_a_remote_or_stops_it(repository, tmp_path):
    repository.run("dvc", "commit", "--force")
    repository.commit("Recorded by DVC")
    before = repository.runs()
    repository.git("checkout", "--quiet", "-b", "less")
    repository.set_rates("fixed", [0.003])
    # Without selections main's settings come to the grid of its baselines alone.
    for folder in ("selections", "gathered"):
        shutil.rmtree(repository.results / folder)
    assert f"main: {len(before)} runs" in repository.run("silent-gradients", "prune")

    repository.run("dvc", "remote", "add", "--default", "--local", "elsewhere", str(tmp_path / "remote"))
    repository.run("dvc", "push")
    cache, site = repository.root / ".dvc/cache", f"{repository.root}-dvc"
    cache.rename(tmp_path / "cache")
    shutil.rmtree(site, ignore_errors=True)
    assert f"main: {len(before)} runs" in repository.run("silent-gradients", "prune", "--delete")
    assert repository.runs() == before

    for folder in (tmp_path / "remote", cache, site):
        shutil.rmtree(folder, ignore_errors=True)
    output = repository.fail("silent-gradients", "prune", "--delete")
    assert "HEAD, less, main: DVC cannot read which runs its report was made of" in output
    assert repository.runs() == before
