"""ZO-SGD-Sign against its formula in float64: the slope's sign, not that of the product."""

import math

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, replay, run
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Signs
from worker.zo.method import measured
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS, STEPS = 17, 0.01, 1e-2, 25


def descent(queries=3) -> Descent:
    return Descent(AdapterSpace(LAYOUT, SEED), Signs(EPS, queries), Sgd(), Schedule(RATE))


@pytest.mark.parametrize("queries", [1, 3])
def test_equals_its_formula(queries):
    f = Quadratic(LAYOUT)
    params, _, journal = run(descent(queries), f, STEPS)
    theta = descent().init()[0].astype(np.float64)
    for step, told in enumerate(journal):
        zs = [noise.normal(Place(SEED, Stream.PROBE, step, q), LAYOUT.size).astype(np.float64) for q in range(queries)]
        np.testing.assert_allclose(told, [f(theta + s * EPS * z) for z in zs for s in (1, -1)], atol=1e-6)
        slopes = [(told[2 * q] - told[2 * q + 1]) / (2 * EPS) for q in range(queries)]
        theta = theta - RATE * sum(np.sign(c) * z for c, z in zip(slopes, zs, strict=True)) / queries
    np.testing.assert_allclose(params, theta, atol=1e-6)


@pytest.mark.parametrize("power", [-900, -40, 3, 800])
def test_a_loss_times_a_power_of_two_leaves_every_bit(power):
    params, _, journal = run(descent(), Quadratic(LAYOUT), STEPS)
    scaled, _ = replay(descent(), [[math.ldexp(x, power) for x in row] for row in journal])
    assert scaled.tobytes() == params.tobytes()


def test_a_move_is_the_direction_itself_and_not_its_entries_signs():
    params, state = descent(1).init()
    moved, _ = descent(1).tell(params, state, measured([1e-9, 0.0]))
    z = noise.normal(Place(SEED, Stream.PROBE, 0), LAYOUT.size)
    np.testing.assert_allclose(params - moved, RATE * z, atol=1e-7)
    assert len(np.unique(np.abs(z))) > 5


def test_an_outlier_counts_as_any_other_and_a_tie_for_nothing():
    assert Signs(EPS, 3).slopes([1e30, 0.0, 1.0, 1.0, 0.0, 1e-30]) == (1.0, 0.0, -1.0)
    params, state = descent(2).tell(*descent(2).init(), measured([0.5, 0.5, 0.25, 0.25]))
    assert params.tobytes() == descent(2).init()[0].tobytes()
    assert state.skipped == 0
