"""FZOO against its algorithm written out in float64, and what dividing by the deviation is worth."""

import math

import numpy as np
import pytest

from db.contract import methods
from tests.worker.zo.problems import LAYOUT, WHOLE, Logistic, Quadratic, run
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Standardised
from worker.zo.method import measured
from worker.zo.methods.fzoo import SignSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS, STEPS = 17, 0.02, 1e-2, 25


def descent(queries=4, deviation="sample", layout=LAYOUT, decay=0.0) -> Descent:
    weights = Standardised("centre", EPS, queries, deviation)
    return Descent(SignSpace(layout, SEED), weights, Sgd(), Schedule(RATE), weight_decay=decay)


@pytest.mark.parametrize("queries, deviation, decay", [(3, "sample", 0.0), (5, "sample", 0.1), (4, "population", 0.1)])
def test_equals_its_formula(queries, deviation, decay):
    f = Quadratic(LAYOUT)
    params, state, journal = run(descent(queries, deviation, decay=decay), f, STEPS)
    theta = descent().init()[0].astype(np.float64)
    for step, told in enumerate(journal):
        places = [Place(SEED, Stream.SIGNS, step, q) for q in range(queries)]
        signs = [noise.signs(place, LAYOUT.size).astype(np.float64) for place in places]
        np.testing.assert_allclose(told, [f(theta), *(f(theta + EPS * u) for u in signs)], atol=1e-6)
        std = np.std(told[1:], ddof=1 if deviation == "sample" else 0)
        move = sum((loss - told[0]) * u for loss, u in zip(told[1:], signs, strict=True)) / (queries * std)
        theta = (1 - RATE * decay) * theta - RATE * move
    assert state.skipped == 0
    np.testing.assert_allclose(params, theta, atol=2e-6)


def test_directions_are_signs_of_every_entry():
    method = descent()
    params, state = method.init()
    u = method.space.direction(params, state, 0)
    assert set(u.tolist()) == {-1.0, 1.0}
    centre, first, *_ = (probe.params for probe in method.ask(params, state, ()))
    assert centre.tobytes() == params.tobytes()
    np.testing.assert_allclose((first - centre) / np.float32(EPS), u, atol=1e-4)


@pytest.mark.parametrize("power", [-900, -40, -1, 1, 30, 800])
@pytest.mark.parametrize("deviation", ["sample", "population"])
def test_a_loss_times_a_power_of_two_leaves_every_bit(power, deviation):
    method = descent(6, deviation)
    params, _, journal = run(method, Quadratic(LAYOUT), STEPS)
    scaled, state = method.init()
    for row in journal:
        scaled, state = method.tell(scaled, state, measured([math.ldexp(x, power) for x in row]))
    assert state.skipped == 0
    assert scaled.tobytes() == params.tobytes()


def test_equal_losses_move_nothing_and_are_finite():
    method = descent()
    params, state = method.init()
    for centre in (0.1, 0.7):  # whatever the centre's is
        params, state = method.tell(params, state, measured([centre, *[0.1] * 4]))
    assert (state.step, state.skipped) == (2, 0)
    assert params.tobytes() == method.init()[0].tobytes()


def test_the_papers_deviation_takes_the_shorter_step():
    moves = []
    for deviation in ("sample", "population"):
        params, state = descent(4, deviation).init()
        moves.append(np.abs(descent(4, deviation).tell(params, state, measured([1, 3, 1, 2, 5]))[0] - params).max())
    assert moves[0] / moves[1] == pytest.approx(math.sqrt(3 / 4), abs=1e-5)
    assert methods.settings(name="fzoo", eps=1e-2, learning_rate=1e-3).deviation == "sample"


def test_one_rate_serves_losses_of_any_scale():
    """Where MeZO's rate would have to fall with the loss's unit, this learns from a thousandth and a million alike."""
    method = descent(8, layout=WHOLE)
    plain = Logistic(WHOLE)
    for scale in (1e-3, 1e6):
        params, _, _ = run(method, lambda x, scale=scale: scale * plain(x), 100)
        assert plain(params) < np.log(2) / 2
