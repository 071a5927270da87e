"""Numbers of things in words."""

from silent_study.words import counted


def test_one_is_singular():
    assert [counted(number, "run") for number in (0, 1, 2, 11)] == ["0 runs", "1 run", "2 runs", "11 runs"]
