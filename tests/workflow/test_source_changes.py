"""An edited estimator: every program notices, and two commands lead on; a comment changes nothing."""

import pytest
from tests.workflow.repository import LITERAL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PATHWISE = "src/silent_gradients/estimators/pathwise.py"
FORMULA = "self.differentiable_samples(q, given.generator)"


def rewrite(repository, old, new):
    path = repository.root / PATHWISE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_runs_of_an_edited_estimator_are_trained_again_or_accepted(finished, tmp_path):
    repository = finished.copy(tmp_path / "repository")
    rewrite(repository, "@register", "# a comment\n@register")
    assert "Nothing to be done" in repository.run(*LITERAL, "--dry-run")
    before, numbers = repository.curve_times(), repository.numbers()

    rewrite(repository, FORMULA, f"1.5 * {FORMULA}")
    for command in (LITERAL, (*LITERAL, "--dry-run"), ("dvc", "repro"), ("silent-gradients", "gather")):
        output = repository.fail(*command)
        assert "by other source code than the present one (silent_gradients/estimators/pathwise.py)" in output
        assert "silent-gradients retrain" in output
    for verb in ("plan", "status", "report"):
        assert "by other source code" in repository.run("silent-gradients", verb)
    assert repository.numbers() == numbers

    accepted = repository.copy(tmp_path / "accepted")
    accepted.run("silent-gradients", "accept", "--reason=for a test")
    accepted.run(*LITERAL)
    assert accepted.curve_times() == {path: accepted.curve_times()[path] for path in before}
    assert accepted.numbers() == numbers

    repository.run("silent-gradients", "retrain")
    repository.run(*LITERAL)
    after = repository.curve_times()
    trained = {path for path in after if after[path] != before.get(path)}
    assert trained
    assert all("reparameterization" in path for path in trained)
    assert len([path for path in before if "reparameterization" in path]) == len(trained)
    repository.run(*LITERAL, "--dry-run")
