"""One finished repository for all tests: those that only read use it, the others a copy."""

import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from tests.workflow.repository import LITERAL, LONG, TINY, Repository


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all processes of this test session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def made_once(folder: Path, **presets: Any) -> Repository:
    """Return a repository after the literal command; whichever process needs it first makes it."""
    output = folder.with_suffix(".txt")
    with FileLock(f"{folder}.lock"):
        if not output.exists():
            output.write_text(Repository.make(folder, **presets).run(*LITERAL))
    return Repository(folder)


@pytest.fixture(scope="session")
def finished(shared_folder) -> Repository:
    """The finished repository."""
    return made_once(shared_folder / "finished", tiny=TINY, long=LONG)


@pytest.fixture(scope="session")
def output_of_finished(finished) -> str:
    """What the literal command printed in the finished repository."""
    return finished.root.with_suffix(".txt").read_text()


@pytest.fixture(scope="session")
def undisturbed(shared_folder) -> Repository:
    """What comes of the long run if nothing interrupts it."""
    return made_once(shared_folder / "undisturbed", long=LONG)


@pytest.fixture
def repository(finished, tmp_path) -> Repository:
    """A copy of the finished repository."""
    return finished.copy(tmp_path / "repository")


@pytest.fixture
def recorded(repository) -> Repository:
    """The same, recorded by DVC in a commit of the branch main."""
    repository.run("dvc", "commit", "--force")
    repository.commit("Recorded by DVC")
    return repository
