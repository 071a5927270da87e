import pytest

from silent_gradients.schedules import SilentSchedule


def test_plateau_then_linear_fall_then_zero():
    schedule = SilentSchedule(plateau_epochs=3, annealing_rate=0.25)
    expected = {0: 1, 1.5: 1, 3: 1, 3.5: 0.875, 4: 0.75, 6: 0.25, 7: 0, 7.5: 0, 100: 0}
    assert {epoch: schedule.weight(epoch) for epoch in expected} == expected


def test_without_a_plateau_the_weight_falls_from_the_start():
    weights = [SilentSchedule(annealing_rate=0.1).weight(epoch) for epoch in (0, 5, 10)]
    assert weights == pytest.approx([1, 0.5, 0], abs=1e-15)


def test_weight_never_rises_and_stays_in_the_unit_interval():
    schedule = SilentSchedule(plateau_epochs=2.5, annealing_rate=0.07)
    weights = [schedule.weight(step / 10) for step in range(400)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == 1
    assert weights[-1] == 0


def test_only_keeps_the_weight_at_one_and_needs_no_rate():
    schedule = SilentSchedule(only=True, plateau_epochs=0, annealing_rate=0, cutoff_epoch=5)
    assert {schedule.weight(epoch) for epoch in (0, 4.9, 5, 1000)} == {1.0}


def test_frozen_from_the_cutoff_on():
    schedule = SilentSchedule(cutoff_epoch=5)
    assert [schedule.frozen(epoch) for epoch in (0, 4.99, 5, 5.01, 6)] == [False, False, True, True, True]
    assert not SilentSchedule(cutoff_epoch=None).frozen(1e9)
