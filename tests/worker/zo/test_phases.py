"""A method may ask again for what it has heard: one row a step, of as many measures as were asked."""

import math

import numpy as np
import pytest

from tests.worker.zo.conservative import Conservative
from tests.worker.zo.problems import WHOLE, Quadratic, heard_of, replay, run
from worker.zo.method import measured

METHOD = Conservative(WHOLE, seed=3, eps=1e-3, rate=0.01)


def test_a_method_of_two_phases_descends_a_quadratic_and_replays_from_its_rows():
    f = Quadratic(WHOLE)
    params, state, journal = run(METHOD, f, 1500)
    assert f(params) < 0.1 < f(METHOD.init()[0]) == pytest.approx(0.5)
    assert min(state.moves) > 0  # it stayed, went and turned round: the second look decides something
    assert {len(row) for row in journal} == {METHOD.most}
    again, its_state = replay(METHOD, journal)
    assert again.tobytes() == params.tobytes()
    assert its_state == state


def test_how_a_row_divides_is_a_function_of_what_was_heard():
    params, state = METHOD.init()
    for flat in ([1.0, 1.0], [math.nan, 1.0]):
        assert METHOD.ask(params, state, measured(flat)) == []
        assert METHOD.tell(params, state, measured(flat))[1].step == 1
    assert len(METHOD.ask(params, state, measured([1.0, 0.5]))) == 3
    with pytest.raises(ValueError, match="losses for"):
        METHOD.tell(params, state, measured([1.0, 0.5]))
    assert METHOD.tell(params, state, measured([math.nan, 1.0]))[1].nonfinite == 1


def test_the_second_phase_lies_where_the_first_points():
    f = Quadratic(WHOLE)
    params, state = METHOD.init()
    row = heard_of(METHOD, params, state, f)
    here, there, back = (probe.params for probe in METHOD.ask(params, state, measured(row[:2])))
    assert here.tobytes() == params.tobytes()
    np.testing.assert_allclose((there.astype(np.float64) + back) / 2, params, atol=1e-7)
    assert row[2:] == [f(here), f(there), f(back)]
