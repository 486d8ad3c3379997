"""MeZO-GV and MeZO-Greedy against their formulas in float64; what a pool points to."""

import math

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, heard_of, replay, run
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.method import measured
from worker.zo.methods.guided import Guided, weights
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS = 17, 0.01, 1e-2


def guided(pool=4, pick="contrast", decay=0.0) -> Guided:
    space = AdapterSpace(LAYOUT, SEED)
    return Guided(Descent(space, Estimator("two_point", EPS), Sgd(), Schedule(RATE), None, decay), pool, pick)


@pytest.mark.parametrize("pool, pick, decay", [(2, "contrast", 0.0), (5, "contrast", 0.1), (4, "best", 0.0)])
def test_equals_its_formula(pool, pick, decay):
    f = Quadratic(LAYOUT)
    params, _, journal = run(guided(pool, pick, decay), f, 25)
    theta = guided().init()[0].astype(np.float64)
    for step, row in enumerate(journal):
        zs = [noise.normal(Place(SEED, Stream.PROBE, step, q), LAYOUT.size).astype(np.float64) for q in range(pool)]
        np.testing.assert_allclose(row[:pool], [f(theta + EPS * z) for z in zs], atol=1e-5)
        order = np.argsort(row[:pool], kind="stable")
        if pick == "best":
            z = zs[order[0]]
        else:
            z = np.mean([zs[i] for i in order[: pool // 2]], axis=0) - np.mean(
                [zs[i] for i in order[pool // 2 :]], axis=0
            )
        np.testing.assert_allclose(row[pool:], [f(theta + EPS * z), f(theta - EPS * z)], atol=1e-5)
        slope = (row[pool] - row[pool + 1]) / (2 * EPS)
        theta = (1 - RATE * decay) * theta - RATE * slope * z
    np.testing.assert_allclose(params, theta, atol=1e-5)


def test_two_phases_and_a_row_of_n_plus_two_numbers_replays():
    f, method = Quadratic(LAYOUT), guided(6)
    params, state = method.init()
    row = heard_of(method, params, state, f)
    assert [len(method.ask(params, state, measured(row[:n]))) for n in (0, 6, 8)] == [6, 2, 0]
    done, its_state, journal = run(method, f, 20)
    assert {len(row) for row in journal} == {8}
    again, state = replay(method, journal)
    assert (again.tobytes(), state) == (done.tobytes(), its_state)


def test_what_a_pool_points_to():
    assert weights([3.0, 1.0, 2.0, 4.0], "contrast") == (-0.5, 0.5, 0.5, -0.5)
    assert weights([3.0, 1.0, 2.0], "contrast") == (-0.5, 1.0, -0.5)
    assert weights([1.0, 1.0, 1.0], "contrast") == (1.0, -0.5, -0.5)  # the earlier of equals is less
    assert weights([3.0, 1.0, 1.0], "best") == (0.0, 1.0, 0.0)


def test_it_points_along_the_gradient_more_than_noise_does():
    """On a linear loss: the cosine's mean size, over 200 steps, against that of one direction."""
    g = np.random.default_rng(1).normal(size=LAYOUT.size)
    method = guided(16)
    params, state = method.init()
    ours, plain = [], []
    for _ in range(200):
        heard = measured([float(g @ (probe.params - params)) for probe in method.ask(params, state, ())])
        up = method.ask(params, state, heard)[0].params - params.astype(np.float64)
        z = noise.normal(Place(SEED, Stream.PROBE, state.step), LAYOUT.size)
        ours.append(-g @ up / np.linalg.norm(g) / np.linalg.norm(up))
        plain.append(abs(g @ z) / np.linalg.norm(g) / np.linalg.norm(z))
        _, state = method.tell(params, state, measured([m.loss for m in heard] + [0.0, 0.0]))
    assert min(ours) > 0  # down the slope before it is measured
    assert np.mean(ours) > 2.5 * np.mean(plain)


def test_a_pool_that_is_not_finite_ends_the_step():
    method = guided(3)
    params, state = method.init()
    bad = measured([1.0, math.nan, 2.0])
    assert method.ask(params, state, bad) == []
    assert method.tell(params, state, bad)[1].nonfinite == 1
    for short in ([1.0, 0.5, 0.2], [1.0, 0.5, 0.2, 0.1], [1.0]):
        with pytest.raises(ValueError, match="losses for"):
            method.tell(params, state, measured(short))
