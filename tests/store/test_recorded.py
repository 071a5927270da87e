"""Runs that other revisions recorded: in a small repository of DVC's, without a remote."""

import subprocess
from pathlib import Path

import pytest
from tests.store.test_runs import write_files

from silent_study.store.code import training_code
from silent_study.store.recorded import take_recorded
from silent_study.store.runs import CODE, RunStore, write_json

STAGE = "stages: {train: {cmd: 'true', outs: [{results/store: {persist: true}}]}}\n"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A function that runs a program in a new repository, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@localhost")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")

    def run(*argv):
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    run("git", "init", "--quiet", "--initial-branch=main")
    run("dvc", "init", "--quiet")
    Path("dvc.yaml").write_text(STAGE)
    return run


@pytest.mark.parametrize("name", ["branch", "tag", "annotated tag"])
def test_a_run_of_a_branch_is_taken_whole_or_not_at_all(repository, tiny, capsys, name):
    store = RunStore(Path("results/store"))
    run, other, stale = runs = [tiny.settings(seed=seed) for seed in range(3)]
    repository("git", "commit", "--quiet", "--allow-empty", "--message=nothing is recorded")
    repository("git", "checkout", "--quiet", "-b", "theirs")
    for settings in runs:
        write_files(store, settings)
        code = {"digest": "of another code", "files": {}} if settings is stale else training_code(settings.estimator)
        write_json(store.working_folder(settings.name) / CODE, code)
        store.seal(settings)
    files = {path: path.read_bytes() for path in store.folder(run.name).iterdir()}
    repository("dvc", "commit", "--force")
    repository("git", "add", "--all")
    repository("git", "commit", "--quiet", "--message=three runs")
    repository("git", "checkout", "--quiet", "main")
    if name != "branch":
        how = ["--annotate", "--message=release"] if name == "annotated tag" else []
        repository("git", "tag", *how, "v1", "theirs")
        repository("git", "branch", "--quiet", "--delete", "--force", "theirs")
    theirs = "theirs" if name == "branch" else "v1"
    ids = {settings.name: settings.id for settings in runs}
    for name in ids:
        assert store.remove(name)

    take_recorded(store, lambda names: {name: ids[name] for name in names if name != other.name})

    assert f"1 run of {theirs} taken" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in store.folder(run.name).iterdir()} == files
    assert store.names() == [run.name]
    # What the cache has lost is trained, and said.
    for path in Path(".dvc/cache/files/md5").glob("*/*"):
        if not path.name.endswith(".dir"):
            path.chmod(0o644)
            path.unlink()
    take_recorded(store, lambda names: {name: ids[name] for name in names})
    assert f"what {theirs} recorded with DVC cannot be read, so it is not reused" in capsys.readouterr().err
    assert store.names() == [run.name]


def test_without_dvc_or_git_nothing_is_looked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        take_recorded(RunStore(Path("results/store")), lambda names: dict.fromkeys(names, ""))
        if (tmp_path / ".dvc").exists():
            monkeypatch.setenv("PATH", str(tmp_path))  # in the third round git is not installed
        (tmp_path / ".dvc").mkdir(exist_ok=True)  # in the second round a folder of that name alone
    assert capsys.readouterr().err == ""
