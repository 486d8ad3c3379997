"""Schedules against their curves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.zo.schedules import Schedule, half_cosine


def test_schedules_rise_and_fall_as_named():
    constant, linear, cosine = (Schedule(2.0, kind, warmup=10, steps=110) for kind in ("constant", "linear", "cosine"))
    for schedule in (constant, linear, cosine):
        assert [schedule(s) for s in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
        assert schedule(10) == 2.0
    assert constant(109) == 2.0
    assert [linear(s) for s in (35, 60, 110)] == pytest.approx([1.5, 1.0, 0.0])
    assert [cosine(s) for s in (35, 60, 110)] == pytest.approx([1 + math.sqrt(0.5), 1.0, 0.0], abs=1e-12)


@given(st.floats(0, 1))
def test_half_cosine_is_the_cosine(x):
    assert half_cosine(x) == pytest.approx((1 + math.cos(math.pi * x)) / 2, abs=1e-15)
