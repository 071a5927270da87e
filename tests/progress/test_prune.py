"""Pruning: what each revision needs, what is removed, and that a kill leaves nothing that names a removed run."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import write_study

from silent_study import params
from silent_study.cli import main
from silent_study.plan.plan import ROUNDS, Plan
from silent_study.progress.prune import Pruning, kept_revisions, lines_for_dvc
from silent_study.report.gathered import marker_of
from silent_study.settings import SettingsError
from silent_study.store.manifests import naming_runs
from silent_study.store.runs import RunStore, StoreError

RESULTS = Path("results")


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A git checkout whose one commit has a learning rate of 0.001, and whose results are complete."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@localhost")
    methods = ["reparameterization", "reparameterization+silent"]
    write_study(tmp_path, "learnable", {"execution": {"workers": 1}}, methods=methods)
    Path(".gitignore").write_text("/results\n")
    git("init", "--quiet", "--initial-branch=main")
    set_rates(0.001)
    commit()
    finish()


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def commit():
    git("add", "--all")
    git("commit", "--quiet", "--message=x")
    return git("rev-parse", "HEAD")


def set_rates(*rates):
    own = {"preset": "small", "experiments": {"learnable": {"digits": {"grid": {"learning_rate": list(rates)}}}}}
    Path("params.yaml").write_text(json.dumps(own))


def finish():
    """Leave what the workflow leaves; the first point of every cell is selected. Returns the names of the runs."""
    plan = Plan(params.load())
    selections: dict[Any, Any] = {}
    names = set()
    for round_ in ROUNDS:
        for pack in plan.packs(round_, selections):
            for run in pack.members:
                write(plan.results / "store" / run.name / "record.json", {})
            write(plan.manifest(pack), {"members": [{"name": run.name} for run in pack.members]})
            names |= {run.name for run in pack.members}
        for group in plan.groups():
            if round_ not in plan.rounds(group)[:-1]:
                continue
            chosen = {}
            for cell in plan.cells_of(round_, group):
                point, run = plan.grid_runs(cell, selections)[0]
                chosen[cell.name] = {"status": "selected", "point": point, "run": run.name}
            write(plan.selection_path(round_, group, selections), {"cells": chosen})
            selections |= chosen
    for marker in RESULTS.glob("gathered/*.json"):
        marker.unlink()
    write(marker_of(plan, selections), {"runs": dict.fromkeys(names, "digest")})
    return names


def write(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def abandoned(rate=0.1):
    """Runs of a setting that was tried and taken back, with its gathering."""
    before = stored()
    set_rates(rate)
    finish()
    git("checkout", "--quiet", "params.yaml")
    finish()
    return stored() - before


def goes(*keep):
    return set(Pruning.of(RESULTS, keep).runs)


def names(*keep):
    return [revision.name for revision in kept_revisions(RESULTS, keep)]


def stored():
    return set(RunStore(RESULTS / "store").names())


def files():
    return {path for path in RESULTS.rglob("*") if path.is_file() and ".locks" not in path.parts}


def test_a_finished_plan_keeps_everything():
    assert len(finish()) == 4  # two cells, two seeds
    pruned = Pruning.of(RESULTS)
    assert (dict(pruned.runs), pruned.stale, len(pruned.kept)) == ({}, (), 4)


def test_an_abandoned_setting_goes_with_all_that_names_its_runs(capsys):
    before = files()
    gone = abandoned()
    assert len(gone) == 4
    after = files()
    pruned = Pruning.of(RESULTS)
    assert set(pruned.runs) == gone
    assert len(pruned.stale) == 3 + 2  # packs and selections
    assert main(["prune"]) == 0
    output = capsys.readouterr().out
    assert "needed by none: 4 runs, 8 bytes; 5 manifests and selections of them" in output
    assert "  digits/learnable/reparameterization+silent: 2 runs, " in output
    assert output.endswith("to remove what none needs: silent-gradients prune --delete\n")
    assert files() == after
    assert main(["prune", "--delete"]) == 0
    assert "removed: 4 runs, " in capsys.readouterr().out
    assert files() == before
    assert main(["prune"]) == 0
    assert "--delete" not in capsys.readouterr().out


def test_an_experiment_that_was_abandoned_leaves_no_empty_folders():
    shutil.rmtree("presets")
    write_study(Path(), preset={"execution": {"workers": 1}}, methods=["reparameterization"])
    commit()
    finish()
    Pruning.of(RESULTS).delete()
    assert [path.name for path in RESULTS.glob("store/digits/*")] == ["fixed"]
    assert {path.name for path in RESULTS.glob("packs/*")} == {"baselines", "seeds"}


def test_head_and_what_the_command_line_names_are_kept():
    first = git("rev-parse", "HEAD")
    set_rates(0.1)
    second = commit()
    finish()
    assert len(goes()) == 4
    assert goes("HEAD~1") == goes(first[:10], first) == set()
    git("reset", "--quiet", "--hard", "HEAD~1")
    finish()
    # A branch, a tag and an experiment of DVC are kept where they are named.
    git("branch", "other", second)
    git("tag", "--annotate", "--message=x", "kept", second)
    assert len(goes()) == 4
    assert goes("other") == goes("kept") == set()
    assert names("other", "kept", "main") == ["working tree", "HEAD, main", "other, kept"]
    git("tag", "params", "HEAD:params.yaml")
    for name in ("nowhere", "params"):
        with pytest.raises(StoreError, match=f"--keep {name}: git has no such revision"):
            goes("HEAD", name)


def test_head_is_kept_while_the_working_tree_has_other_settings():
    set_rates(0.1)
    finish()
    assert goes() == set()


def test_before_the_first_commit_the_working_tree_counts():
    git("update-ref", "-d", "HEAD")
    assert names() == ["working tree"]


def test_without_git_the_working_tree_counts_and_it_is_said(capsys):
    Path(".git").rename("elsewhere")
    assert main(["prune"]) == 0
    assert "only the working tree counts" in capsys.readouterr().out
    with pytest.raises(StoreError, match="no git checkout"):
        names("main")


def test_a_checkout_that_git_cannot_read_does_not_pass_for_none(monkeypatch):
    abandoned()
    Path(".git/HEAD").unlink()
    for path in (os.environ["PATH"], ""):  # without git as well
        monkeypatch.setenv("PATH", path)
        with pytest.raises(StoreError, match=r"git cannot read this checkout.*; try: git rev-parse --git-dir"):
            goes()


def test_the_report_on_disk_is_kept_until_it_is_gathered_again():
    set_rates(0.1)
    finish()
    git("checkout", "--quiet", "params.yaml")
    pruned = Pruning.of(RESULTS)
    assert not pruned.runs
    assert "working tree: 8 runs; 4 are of its report alone" in pruned.overview()
    (marker,) = RESULTS.glob("gathered/*")
    marker.write_text(marker.read_text()[:20])
    with pytest.raises(StoreError, match=r"gathered/\S+: cannot be read.*gather again: snakemake "):
        goes()


@pytest.mark.parametrize(("round_", "runs"), [("baselines", 3), ("guided", 2)])
def test_a_selection_that_is_missing_stops_it_where_runs_depend_on_it(round_, runs, capsys):
    for path in [*RESULTS.glob(f"selections/digits/learnable/{round_}-*"), *RESULTS.glob("gathered/*")]:
        path.unlink()
    before = files()
    assert main(["prune", "--delete"]) == 1
    error = capsys.readouterr().err
    assert "working tree: a selection of digits/learnable is missing, and which of its " in error
    assert f"{runs} runs in the store" in error
    assert f"run: snakemake --cores all results/selections/digits/learnable/{round_}-" in error
    assert error.count("\n") == 1
    assert files() == before


def test_a_round_that_is_not_selected_yet_adds_nothing():
    gone = abandoned()
    for path in [*RESULTS.glob("selections/digits/learnable/*"), *RESULTS.glob("gathered/*")]:
        path.unlink()
    for run in RunStore(RESULTS / "store").names():
        if run not in gone and (",seed=1" in run or "+silent" in run):
            assert RunStore(RESULTS / "store").remove(run)
    pruned = Pruning.of(RESULTS)
    assert set(pruned.runs) == gone
    note = "nothing is selected yet for its guided round of digits/learnable"
    assert f"working tree: 1 run; {note}" in pruned.overview()


def test_unfinished_runs_that_are_needed_stay():
    (mine, *_), (other, *_) = sorted(finish()), sorted(abandoned())
    store = RunStore(RESULTS / "store")
    for name in (mine, other):
        store.folder(name).rename(store.working_folder(name))
    pruned = Pruning.of(RESULTS)
    assert ", 1 of them unfinished" in pruned.overview()
    pruned.delete()
    assert store.working_folder(mine).exists()
    assert not store.working_folder(other).exists()


def test_settings_that_cannot_be_read_stop_it(capsys):
    kept = stored()
    Path("params.yaml").write_text("preset: small\nepoch: 3\n")
    with pytest.raises(SettingsError, match="epoch: unknown key"):
        goes()
    commit()
    set_rates(0.1)
    gone = finish()
    assert main(["prune", "--delete"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "silent-gradients prune: HEAD: the present code cannot read its settings (epoch: unknown key"
    )
    assert error.count("\n") == 1
    assert kept | gone == stored()


def test_a_revision_without_settings_needs_nothing():
    gone = abandoned()
    git("checkout", "--quiet", "--orphan", "pages")
    git("rm", "--quiet", "-r", "--cached", ".")
    git("commit", "--quiet", "--allow-empty", "--message=x")
    git("checkout", "--quiet", "--force", "main")
    pruned = Pruning.of(RESULTS, ["pages"])
    assert set(pruned.runs) == gone
    assert "pages: 0 runs; it has no params.yaml" in pruned.overview()


def test_in_a_folder_of_a_larger_checkout(tmp_path, monkeypatch):
    gone = abandoned()
    inner = tmp_path / "inner"
    inner.mkdir()
    for name in ("presets", "params.yaml", "results"):
        Path(name).rename(inner / name)
    commit()
    monkeypatch.chdir(inner)
    pruned = Pruning.of(RESULTS)
    assert set(pruned.runs) == gone
    assert "HEAD: 4 runs" in pruned.overview()


def test_a_run_that_another_process_trains_is_left_alone():
    gone = abandoned()
    busy = min(gone)
    with RunStore(RESULTS / "store").locked(busy):
        said = Pruning.of(RESULTS).delete()
    assert f"{busy}: left alone, another process is training it" in said
    assert "removed: 3 runs" in said
    assert goes() == {busy}


@pytest.mark.parametrize("removed", range(4))
def test_after_a_kill_nothing_names_a_removed_run_and_the_same_command_goes_on(removed, monkeypatch):
    before = files()
    gone = abandoned()

    class Killed(BaseException):
        pass

    remove = RunStore.remove
    calls: list[str] = []
    left = RESULTS / "store/.locks/0.partial"  # of a removal that was killed
    left.mkdir(parents=True)

    def killed(store, name):
        if len(calls) == removed:
            raise Killed
        calls.append(name)
        return remove(store, name)

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "remove", killed)
        with pytest.raises(Killed):
            Pruning.of(RESULTS).delete()
    assert not [name for _, named in naming_runs(RESULTS) for name in named if name in gone]
    assert len(goes()) == 4 - removed
    Pruning.of(RESULTS).delete()
    assert files() == before
    assert not left.exists()


def test_the_commands_for_dvc_are_printed_where_it_is_used(capsys):
    assert lines_for_dvc() == ""
    assert main(["prune", "--delete"]) == 0
    assert "dvc" not in capsys.readouterr().out
    Path("dvc.lock").write_text("stages: {}\n")
    assert main(["prune", "--delete", "--keep", "HEAD"]) == 0
    output = capsys.readouterr().out
    assert "dvc gc --workspace --all-branches --all-tags --all-experiments" in output
    assert "git tag <name> HEAD" in output
