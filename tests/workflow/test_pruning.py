"""Pruning between branches: what is kept is whole for Snakemake and for DVC, what is removed is gone."""

import pytest
from tests.workflow.repository import LITERAL

NOTHING = "Nothing to be done"


@pytest.mark.slow
@pytest.mark.timeout(1200)
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
    assert NOTHING in recorded.run(*LITERAL)

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
        assert NOTHING in recorded.run(*LITERAL)
        assert "up to date" in recorded.run("dvc", "status")
        assert "needed by none: 0 runs" in recorded.run(*keep, "--delete")
