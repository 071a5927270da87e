"""Images per second over a window, by hand."""

import pytest

from silent_study.training.speed import WINDOW, Speed


def test_two_marks_make_a_speed():
    speed = Speed()
    assert speed.images_per_second is None
    speed.mark(10.0, 1000)
    assert speed.images_per_second is None
    speed.mark(10.0, 1000)
    assert speed.images_per_second is None
    speed.mark(14.0, 1200)
    assert speed.images_per_second == 50.0


def test_what_is_older_than_the_window_no_longer_counts():
    speed = Speed()
    for second in range(200):
        speed.mark(float(second), second if second < 100 else 100 + 10 * (second - 100))
    assert speed.images_per_second == pytest.approx(10.0)
    speed.mark(199.0 + 3 * WINDOW, 1090)  # it stood still meanwhile
    assert speed.images_per_second == 0.0
