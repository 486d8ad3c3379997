"""When a run will be done, from how it went in this process."""

from datetime import UTC, datetime

import pytest

from worker.slices.pace import Pace


def test_a_finish_is_estimated_from_steps_taken_in_this_process():
    pace = Pace(10)
    assert pace.finish(10, 100) is None
    pace.at -= 20.0
    left = (pace.finish(20, 100) - datetime.now(UTC)).total_seconds()
    assert left == pytest.approx(160.0, abs=1.0)
