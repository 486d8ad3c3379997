"""When a job will be done, from all of its steps: steady over slices, waits, evaluations, pauses and other workers."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from tests.worker.slices.doubles import Time
from worker.slices.pace import Pace, went_on

TOTAL = 3000


def test_a_finish_is_estimated_from_steps_taken():
    time = Time()
    pace = Pace(10, clock=lambda: time.now)
    assert pace.finish(10, 100) is None
    time.now += 20.0
    assert (pace.finish(20, 100) - datetime.now(UTC)).total_seconds() == pytest.approx(160.0, abs=1.0)
    assert pace.left(20, 100) == pytest.approx(160.0)


def test_time_left_is_steady_over_slices_that_wait_for_others():
    """Slices of 5 s at 4 steps a second, an evaluation of 3 s each 50 steps, and 10 to 20 s of others' between them."""
    time, drawn = Time(), random.Random(7)
    pace, step, seen = Pace(0, clock=lambda: time.now), 0, []
    begun = time.now
    while step < TOTAL:
        for _ in range(5):
            time.now += 1.0 + (3.0 if step % 52 == 0 else 0.0)
            step += 4
            seen.append((time.now - begun, pace.left(step, TOTAL)))
        time.now += drawn.uniform(10, 20)
    whole = time.now - begun
    assert all(left is not None for _, left in seen)
    late = [(passed, left) for passed, left in seen if passed > 120 and whole - passed > 60]
    assert len(late) > 400
    assert max(abs(left - (whole - passed)) / (whole - passed) for passed, left in late) < 0.25


def test_another_worker_goes_on_from_what_was_foretold():
    now = datetime.now(UTC)
    pace = went_on(100, 400, now - timedelta(hours=5), now - timedelta(hours=5) + timedelta(minutes=10))
    assert pace.left(100, 400) == pytest.approx(600.0), "a pause of five hours is nobody's work"
    assert went_on(100, 400, None, now).left(100, 400) is None
    assert went_on(0, 400, None, None).left(0, 400) is None


def test_a_pause_does_not_count():
    time = Time()
    pace = Pace(0, clock=lambda: time.now)
    time.now += 10
    assert pace.left(10, 110) == pytest.approx(100.0)
    pace.rest()
    time.now += 36_000
    pace.wake()
    time.now += 10
    assert pace.left(20, 120) == pytest.approx(100.0)
