"""Kills at every place of a study; ``kills.py`` does the same in greater numbers."""

import pytest
from tests.workflow import warm
from tests.workflow.kills import PLACES, kill_studies

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_a_study_that_was_killed_everywhere_has_the_numbers_of_an_undisturbed_one(tmp_path):
    with warm.running(tmp_path / "programs") as programs:
        account = kill_studies(tmp_path, 2 * len(PLACES), seed=0, programs=programs)

    assert account.failures == []
    assert {name for name, _ in account.hits} == set(PLACES)
    assert account.hits.total() == 2 * len(PLACES)
