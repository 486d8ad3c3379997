"""The evolution strategy against its formula in float64, and that affine maps of the losses change nothing."""

import math

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, replay, run
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Standardised
from worker.zo.method import measured
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS, STEPS, MEMBERS = 17, 0.03, 1e-2, 25, 6


def descent(queries=MEMBERS) -> Descent:
    return Descent(AdapterSpace(LAYOUT, SEED), Standardised("mean", EPS, queries), Sgd(), Schedule(RATE))


@pytest.mark.parametrize("queries", [2, MEMBERS])
def test_equals_its_formula(queries):
    f = Quadratic(LAYOUT)
    params, state, journal = run(descent(queries), f, STEPS)
    theta = descent().init()[0].astype(np.float64)
    for step, told in enumerate(journal):
        zs = [noise.normal(Place(SEED, Stream.PROBE, step, q), LAYOUT.size).astype(np.float64) for q in range(queries)]
        np.testing.assert_allclose(told, [f(theta + EPS * z) for z in zs], atol=1e-6)
        scores = (np.array(told) - np.mean(told)) / np.std(told)
        theta = theta - RATE * sum(score * z for score, z in zip(scores, zs, strict=True)) / queries
    assert state.skipped == 0
    np.testing.assert_allclose(params, theta, atol=2e-6)


@pytest.mark.parametrize("power", [-900, -40, 3, 800])
def test_a_loss_times_a_power_of_two_leaves_every_bit(power):
    params, _, journal = run(descent(), Quadratic(LAYOUT), STEPS)
    scaled, _ = replay(descent(), [[math.ldexp(x, power) for x in row] for row in journal])
    assert scaled.tobytes() == params.tobytes()


@pytest.mark.parametrize("scale, shift", [(1.0, 3.0), (0.3, 0.0), (7.0, -11.0)])
def test_any_rising_affine_map_of_the_losses_changes_rounding_only(scale, shift):
    params, _, journal = run(descent(), Quadratic(LAYOUT), STEPS)
    mapped, _ = replay(descent(), [[scale * x + shift for x in row] for row in journal])
    np.testing.assert_allclose(mapped, params, atol=1e-6)
    fallen, _ = replay(descent(), [[-x for x in row] for row in journal])
    assert np.abs(fallen - params).max() > 1e-2  # a falling one turns it round


@pytest.mark.parametrize("loss", [0.0, 0.1, 2.0 / 3, 1e6 / 7])
@pytest.mark.parametrize("queries", [2, 10, 30])
def test_equal_losses_move_nothing_and_are_finite(loss, queries):
    """Also where the sum of equal losses is not their number times one of them."""
    method = descent(queries)
    params, state = method.tell(*method.init(), measured([loss] * queries))
    assert (state.step, state.skipped) == (1, 0)
    assert params.tobytes() == method.init()[0].tobytes()


def test_a_step_is_of_one_size_however_flat_the_loss():
    """Scores have variance 1, so a move's norm is about rate sqrt(P / N), whatever the losses are."""
    method = descent(30)
    params, state = method.init()
    expected = RATE * math.sqrt(LAYOUT.size / 30)
    for spread in (1e-9, 1.0, 1e9):
        losses = spread * np.random.default_rng(3).normal(size=30)
        moved, _ = method.tell(params, state, measured(losses))
        assert np.linalg.norm(moved - params) == pytest.approx(expected, rel=0.25)
