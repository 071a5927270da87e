"""The revision of the source, in throw-away repositories."""

import subprocess

import pytest

from silent_study.store.provenance import source_revision


@pytest.fixture
def repository(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "source")
    return tmp_path, git


def test_a_commit_of_settings_is_no_other_source_and_an_edit_is_said(repository):
    folder, git = repository
    of_the_source = git("rev-parse", "HEAD")
    (folder / "params.yaml").write_text("preset: digits\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "settings")
    assert git("rev-parse", "HEAD") != of_the_source
    assert source_revision(folder / "src") == {"revision": of_the_source, "modified": False}
    (folder / "src" / "a.py").write_text("a = 2\n")
    assert source_revision(folder / "src") == {"revision": of_the_source, "modified": True}


def test_outside_a_checkout_nothing_is_known(tmp_path):
    assert source_revision(tmp_path) == {"revision": None, "modified": None}
