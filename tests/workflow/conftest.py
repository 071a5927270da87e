"""One finished repository for all tests: those that only read use it, the others a copy."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from tests.workflow.repository import LITERAL, LONG, TINY, Repository


@dataclass(frozen=True)
class Finished:
    """A repository after the literal command.

    Attributes:
        repository: The repository.
        output: What the command said.
    """

    repository: Repository
    output: str


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all processes of this test session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def finished(shared_folder) -> Finished:
    """The finished repository, made by whichever process asks first."""
    folder, output = shared_folder / "finished", shared_folder / "finished.txt"
    with FileLock(f"{folder}.lock"):
        if not output.exists():
            text = Repository.make(folder, tiny=TINY, long=LONG).run(*LITERAL)
            output.write_text(text)
    return Finished(Repository(folder), output.read_text())


@pytest.fixture
def repository(finished, tmp_path) -> Repository:
    """A copy of the finished repository."""
    return finished.repository.copy(tmp_path / "repository")


@pytest.fixture
def recorded(repository) -> Repository:
    """The same, recorded by DVC in a commit of the branch main."""
    repository.run("dvc", "commit", "--force")
    repository.commit("Recorded by DVC")
    return repository
