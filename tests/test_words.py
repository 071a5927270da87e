"""Numbers and durations in words, and what was meant by a misspelt one."""

import pytest

from silent_study.words import counted, did_you_mean, duration


def test_one_is_singular():
    assert [counted(number, "run") for number in (0, 1, 2, 11)] == ["0 runs", "1 run", "2 runs", "11 runs"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (14.4, "14 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_nearest_known_word_is_suggested():
    assert did_you_mean("sedes", ["seeds", "data"]) == " (did you mean 'seeds'?)"
    assert did_you_mean("zzz", ["seeds", "data"]) == ""
