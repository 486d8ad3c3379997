"""A leak is told from noise: slopes and handles of made-up series."""

import os

import pytest

from tests.chaos.soak import Series, broken, gained, growth


def test_growth_is_told_in_per_cent_an_hour():
    minutes = [60.0 * i for i in range(60)]
    assert growth(minutes, [1000.0] * 60) == pytest.approx(0)
    assert growth(minutes, [1000.0 + 10 * i / 60 for i in range(60)]) == pytest.approx(1.0, rel=0.02)
    assert abs(growth(minutes, [1000.0 + 50 * (i % 2) for i in range(60)])) < 1  # up and down is no growth
    assert growth([0.0], [1.0]) == 0


def test_handles_are_counted_between_the_first_quarter_and_the_last():
    assert gained([10, 11, 10, 12, 11, 10, 12, 10]) == 0.5
    assert gained([10, 12, 14, 16]) == 6


def test_what_leaks_is_named():
    fine = {"lived": True, "growth (% an hour)": 1.0, "handles gained": 1}
    leaky = {"lived": True, "growth (% an hour)": 3.0, "handles gained": 9}
    assert broken({"api": fine, "worker": leaky}) == ["worker grows by 3.0 % an hour", "worker gained 9 handles"]
    assert broken({"api": fine | {"lived": False}}) == ["api died"]


def test_a_process_that_is_gone_is_noted_and_no_other():
    here, gone = Series(os.getpid()), Series(2**22 + 1)  # beyond the highest id that a process can have
    for one in (here, gone):
        one.sample(0.0)
    assert (here.died, len(here.resident), here.handles[0] > 0) == (False, 1, True)
    assert (gone.died, gone.resident) == (True, [])
