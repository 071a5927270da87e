"""Pruning: what each revision asks for, what goes, and that a kill leaves nothing that promises a removed run."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from silent_study import params
from silent_study.cli import main
from silent_study.plan.plan import ROUNDS, Plan
from silent_study.progress import prune as pruning
from silent_study.progress.prune import Pruning, RevisionError, kept_revisions, lines_for_dvc
from silent_study.settings import SettingsError
from silent_study.store.runs import RunStore

RESULTS = Path("results")
SECTION = {
    "methods": ["reparameterization", "reparameterization+silent"],
    "epochs": 2,
    "batch_size": 128,
    "latent_dim": 3,
    "network": {"architecture": "plain", "encoder_channels": [2, 2, 2], "decoder_channels": [2, 2, 2, 2, 2]},
    "grid": {"learning_rate": [0.001]},
}
PRESET = {"seeds": [0, 1], "execution": {"workers": 1}, "experiments": {"learnable": {"digits": SECTION}}}


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A git checkout whose one commit has a learning rate of 0.001, and whose results are complete."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@localhost")
    Path("presets").mkdir()
    Path("presets/small.yaml").write_text(json.dumps(PRESET))  # JSON is YAML
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
    write(plan.gathered_marker(selections), {"runs": dict.fromkeys(names, "digest")})
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
    return set(Pruning.of(RESULTS, kept_revisions(keep)).runs)


def stored():
    return set(RunStore(RESULTS / "store").names())


def files():
    return {path for path in RESULTS.rglob("*") if path.is_file() and ".locks" not in path.parts}


def test_a_finished_plan_keeps_everything():
    assert len(finish()) == 4  # two cells, two seeds
    pruned = Pruning.of(RESULTS, kept_revisions())
    assert (dict(pruned.runs), pruned.promises) == ({}, ())
    assert len(pruned.kept) == 4


def test_an_abandoned_setting_goes_with_all_that_names_its_runs():
    before = files()
    gone = abandoned()
    assert len(gone) == 4
    after = files()
    pruned = Pruning.of(RESULTS, kept_revisions())
    assert set(pruned.runs) == gone
    assert len(pruned.promises) == 3 + 2  # packs and selections
    assert "digits/learnable/reparameterization+silent: 2 runs, " in pruned.overview()
    assert files() == after
    assert pruned.delete().startswith("removed: 4 runs, ")
    assert files() == before


def test_an_experiment_that_was_abandoned_leaves_no_empty_folders():
    fixed = {"fixed": {"digits": {**SECTION, "methods": ["reparameterization"]}}}
    Path("presets/small.yaml").write_text(json.dumps({**PRESET, "experiments": fixed}))
    Path("params.yaml").write_text("preset: small\n")
    finish()
    Pruning.of(RESULTS, [pruning.WORKING_TREE]).delete()
    assert [path.name for path in RESULTS.glob("store/digits/*")] == ["fixed"]
    assert {path.name for path in RESULTS.glob("packs/*")} == {"baselines", "seeds"}


@pytest.mark.parametrize(
    "name",
    ["refs/heads/kept", "refs/heads/a/b", "refs/tags/kept", "refs/exps/01/23456789/kept"],
)
def test_what_a_name_of_git_leads_to_is_kept(name):
    set_rates(0.1)
    kept = commit()
    finish()
    git("reset", "--quiet", "--hard", "HEAD~1")
    finish()
    assert len(goes()) == 4
    git("update-ref", name, kept)
    assert goes() == set()


def test_an_annotated_tag_is_kept_and_one_of_something_else_is_no_revision():
    git("tag", "--annotate", "--message=x", "one")
    git("tag", "params", "HEAD:params.yaml")
    git("branch", "other")
    assert [str(revision) for revision in kept_revisions()] == ["working tree", "HEAD, main, other, one"]


def test_the_notes_of_dvc_are_no_experiments():
    git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")
    git("update-ref", "refs/exps/01/23456789/mine", "HEAD")
    assert [str(revision) for revision in kept_revisions()] == ["working tree", "HEAD, experiment mine, main"]


def test_a_detached_head_counts():
    set_rates(0.1)
    commit()
    finish()
    git("checkout", "--quiet", "--detach")
    git("branch", "--force", "main", "HEAD~1")
    set_rates(0.001)
    finish()
    assert goes() == set()


def test_a_revision_of_the_command_line_is_kept():
    first = git("rev-parse", "HEAD")
    set_rates(0.1)
    commit()
    finish()
    assert len(goes()) == 4
    assert goes("HEAD~1") == goes("main", first[:10]) == set()
    with pytest.raises(RevisionError, match=r"--keep nowhere: git knows no such revision"):
        goes("HEAD~1", "nowhere")


def test_before_the_first_commit_the_working_tree_counts():
    git("update-ref", "-d", "HEAD")
    assert kept_revisions() == [pruning.WORKING_TREE]


def test_without_git_the_working_tree_counts_and_it_is_said(capsys):
    Path(".git").rename("elsewhere")
    assert main(["prune"]) == 0
    assert "only the working tree counts" in capsys.readouterr().out
    with pytest.raises(RevisionError, match="no git checkout"):
        kept_revisions(["main"])


def test_a_checkout_that_git_cannot_read_does_not_pass_for_none(monkeypatch):
    gone = abandoned()
    Path(".git/HEAD").unlink()
    with pytest.raises(RevisionError, match="git for-each-ref failed"):
        goes()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RevisionError, match="git cannot be run"):
        goes()
    assert gone <= stored()


def test_the_report_on_disk_is_kept_until_it_is_gathered_again():
    set_rates(0.1)
    finish()
    git("checkout", "--quiet", "params.yaml")
    pruned = Pruning.of(RESULTS, kept_revisions())
    assert not pruned.runs
    assert "working tree: 8 runs; 4 are those of its report alone" in pruned.overview()


def test_a_round_that_is_not_selected_yet_adds_nothing():
    for path in [*RESULTS.glob("selections/digits/learnable/guided-*"), *RESULTS.glob("gathered/*")]:
        path.unlink()
    pruned = Pruning.of(RESULTS, [pruning.WORKING_TREE])
    # The first seed's runs are those of the grids.
    assert sorted(name.rpartition("-")[0].rpartition(",")[2] for name in pruned.runs) == ["seed=1", "seed=1"]
    assert "working tree: 2 runs; nothing is selected here for its seeds round of digits/learnable" in pruned.overview()


def test_unfinished_runs_that_are_asked_for_stay():
    (mine, *_), (other, *_) = sorted(finish()), sorted(abandoned())
    store = RunStore(RESULTS / "store")
    for name in (mine, other):
        store.folder(name).rename(store.working_folder(name))
    pruned = Pruning.of(RESULTS, kept_revisions())
    assert ", 1 of them unfinished" in pruned.overview()
    pruned.delete()
    assert store.working_folder(mine).exists()
    assert not store.working_folder(other).exists()


RECORDED = "stages:\n  report:\n    outs:\n    - {path: results/gathered, md5: 0.dir}\n"


@pytest.fixture
def recorded(monkeypatch):
    """``recorded(*markers)``: what DVC has of every commit."""

    def recorded(*markers):
        monkeypatch.setattr(pruning, "_recorded_markers", lambda *_: list(markers))

    return recorded


def test_what_dvc_recorded_of_a_revision_is_kept(recorded):
    gone = abandoned()
    recorded({"runs": dict.fromkeys(gone, "digest")})
    assert goes() == set()
    recorded()
    assert goes() == gone


def test_settings_that_the_present_code_does_not_read(recorded, capsys):
    kept = finish()
    Path("params.yaml").write_text("preset: small\nepoch: 3\n")
    commit()
    set_rates(0.1)
    gone = finish()
    recorded()
    assert main(["prune", "--delete"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("silent-gradients prune: HEAD, main: the present code does not read its settings (epoch: ")
    assert error.count("\n") == 1
    assert kept | gone == stored()

    recorded({"runs": dict.fromkeys(kept, "digest")})
    assert main(["prune"]) == 0
    assert "HEAD, main: 4 runs; those of its report alone; epoch: unknown key" in capsys.readouterr().out
    assert goes() == set()


def test_a_branch_without_settings_asks_for_nothing():
    gone = abandoned()
    git("checkout", "--quiet", "--orphan", "pages")
    git("rm", "--quiet", "-r", "--cached", ".")
    git("commit", "--quiet", "--allow-empty", "--message=x")
    git("checkout", "--quiet", "--force", "main")
    pruned = Pruning.of(RESULTS, kept_revisions())
    assert set(pruned.runs) == gone
    assert "pages: 0 runs; it has no params.yaml" in pruned.overview()


@pytest.mark.parametrize("lock", [RECORDED, "<<<<<<< HEAD\n", "stages: 3\n"])
def test_a_record_that_dvc_cannot_read_stops_it(lock, capsys):
    gone = abandoned()
    Path("dvc.lock").write_text(lock)
    commit()  # of a repository that DVC was never set up in
    assert main(["prune", "--delete"]) == 1
    error = capsys.readouterr().err
    assert "HEAD, main: DVC cannot read which runs its report was made of" in error
    assert "dvc fetch" in error
    assert error.count("\n") == 1
    assert gone <= stored()


def test_a_lock_without_a_report_is_no_record():
    gone = abandoned()
    Path("dvc.lock").write_text("stages:\n  data:\n    outs:\n    - {path: data/prepared, md5: 0.dir}\n  x: {cmd: y}\n")
    commit()
    assert goes() == gone


def test_a_working_tree_that_cannot_be_read_stops_it():
    abandoned()
    Path("params.yaml").write_text("preset: small\nepoch: 3\n")
    with pytest.raises(SettingsError, match="epoch: unknown key"):
        goes()


def test_in_a_folder_of_a_larger_checkout(tmp_path, monkeypatch):
    gone = abandoned()
    inner = tmp_path / "inner"
    inner.mkdir()
    for name in ("presets", "params.yaml", "results"):
        Path(name).rename(inner / name)
    commit()
    monkeypatch.chdir(inner)
    pruned = Pruning.of(RESULTS, kept_revisions())
    assert set(pruned.runs) == gone
    assert "HEAD, main: 4 runs" in pruned.overview()


def test_a_run_that_another_process_trains_is_left_alone():
    gone = abandoned()
    store = RunStore(RESULTS / "store")
    busy = min(gone)
    with store.locked(busy):
        said = Pruning.of(RESULTS, kept_revisions()).delete()
    assert f"{busy}: left alone, another process is training it" in said
    assert "removed: 3 runs" in said
    assert goes() == {busy}


@pytest.mark.parametrize("removed", range(4))
def test_after_a_kill_nothing_promises_a_removed_run_and_the_same_goes_on(removed, monkeypatch):
    before = files()
    gone = abandoned()

    class Killed(BaseException):
        pass

    remove = RunStore.remove
    calls: list[str] = []

    def killed(store, name):
        if len(calls) == removed:
            raise Killed
        calls.append(name)
        return remove(store, name)

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "remove", killed)
        with pytest.raises(Killed):
            Pruning.of(RESULTS, kept_revisions()).delete()
    assert not [name for _, names in pruning._promises(RESULTS) for name in names if name in gone]
    assert len(goes()) == 4 - removed
    Pruning.of(RESULTS, kept_revisions()).delete()
    assert files() == before


def test_nothing_is_removed_without_being_asked_to(capsys):
    abandoned()
    before = files()
    assert main(["prune"]) == 0
    output = capsys.readouterr().out
    assert "asked for by none: 4 runs" in output
    assert output.endswith("to remove them: silent-gradients prune --delete\n")
    assert files() == before
    assert main(["prune", "--delete"]) == 0
    assert "removed: 4 runs" in capsys.readouterr().out
    assert main(["prune"]) == 0
    assert "--delete" not in capsys.readouterr().out


def test_dvc_is_brought_along_where_it_is_used(capsys):
    assert lines_for_dvc() == ""
    assert main(["prune", "--delete"]) == 0
    assert "dvc" not in capsys.readouterr().out
    Path("dvc.lock").write_text("stages: {}\n")
    assert main(["prune", "--delete", "--keep", "HEAD"]) == 0
    output = capsys.readouterr().out
    assert "dvc gc --workspace --all-branches --all-tags --all-experiments" in output
    assert "git tag <name> HEAD" in output


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (3.2e15, "3200 TB")]
)
def test_sizes_in_words(size, text):
    assert pruning._readable(size) == text
