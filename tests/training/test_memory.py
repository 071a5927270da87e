"""What Linux says of this process's memory, against what it is known to hold."""

import numpy as np

from silent_study.training.memory import peak_megabytes, reset_peak, resident_megabytes


def test_the_peak_is_what_was_held_at_once():
    reset_peak()
    before = resident_megabytes()
    held = np.ones(25 * 2**20)  # 200 MiB
    assert resident_megabytes() - before > 190
    del held
    assert resident_megabytes() - before < 100
    assert 190 < peak_megabytes() - before < 250
    reset_peak()
    assert peak_megabytes() - before < 100
