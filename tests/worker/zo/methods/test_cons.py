"""ZO-SGD-Cons against its formula in float64; where it is asked, what it keeps, and what it never does."""

import math
from itertools import pairwise

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, heard_of, replay, run
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.method import measured
from worker.zo.methods.cons import Conservative
from worker.zo.methods.lozo import WindowSpace
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS = 17, 0.05, 1e-2


def cons(queries=1, rate=RATE, decay=0.0, kind="two_point", space=None) -> Conservative:
    estimator = Estimator(kind, EPS, queries)
    return Conservative(Descent(space or AdapterSpace(LAYOUT, SEED), estimator, Sgd(), Schedule(rate), None, decay))


@pytest.mark.parametrize("queries, decay", [(1, 0.0), (2, 0.1)])
def test_equals_its_formula(queries, decay):
    f = Quadratic(LAYOUT)
    params, _, journal = run(cons(queries, decay=decay), f, 30)
    theta, went = cons().init()[0].astype(np.float64), []
    for step, row in enumerate(journal):
        zs = [noise.normal(Place(SEED, Stream.PROBE, step, q), LAYOUT.size).astype(np.float64) for q in range(queries)]
        slopes = [(row[2 * q] - row[2 * q + 1]) / (2 * EPS) for q in range(queries)]
        away = RATE * sum(c * z for c, z in zip(slopes, zs, strict=True)) / queries
        shrunk = (1 - RATE * decay) * theta
        places = [theta, shrunk - away, shrunk + away]
        np.testing.assert_allclose(row[2 * queries :], [f(place) for place in places], atol=1e-5)
        went.append(int(np.argmin(row[2 * queries :])))
        theta = places[went[-1]]
    np.testing.assert_allclose(params, theta, atol=2e-6)
    assert len(set(went)) > 1  # the second look decides something


@pytest.mark.parametrize("kind, queries", [("two_point", 1), ("one_sided", 2), ("population", 3)])
def test_the_loss_on_a_fixed_batch_never_rises(kind, queries):
    """At a rate at which the descent alone does not know where it goes."""
    f, method = Quadratic(LAYOUT), cons(queries, rate=0.1, kind=kind)
    params, state = method.init()
    losses = [f(params)]
    for _ in range(60):
        params, state = method.tell(params, state, measured(heard_of(method, params, state, f)))
        losses.append(f(params))
    assert all(after <= before for before, after in pairwise(losses))
    assert losses[-1] < losses[0]
    plain, _, _ = run(method.descent, f, 60)
    assert not f(plain) <= losses[-1]


def test_the_second_phase_is_asked_and_a_row_of_five_replays():
    f, method = Quadratic(LAYOUT), cons()
    params, state = method.init()
    row = heard_of(method, params, state, f)
    assert [len(method.ask(params, state, measured(row[:n]))) for n in (0, 2, 5)] == [2, 3, 0]
    here, there, back = (probe.params for probe in method.ask(params, state, measured(row[:2])))
    assert here.tobytes() == params.tobytes()
    assert there.tobytes() == method.descent.tell(params, state, measured(row[:2]))[0].tobytes()
    np.testing.assert_allclose((there.astype(np.float64) + back) / 2, params, atol=1e-7)
    done, its_state, journal = run(method, f, 20)
    assert {len(row) for row in journal} == {5}
    again, state = replay(method, journal)
    assert (again.tobytes(), state) == (done.tobytes(), its_state)


def test_ties_keep_theta_and_otherwise_the_least_wins():
    method = cons()
    params, state = method.init()
    _, there, back = (probe.params for probe in method.ask(params, state, measured([1.0, 0.5])))
    for looked, place in (
        ([1.0, 1.0, 1.0], params), ([1.0, 1.0, 2.0], params), ([1.0, 2.0, 1.0], params), ([1.0, 0.9, 0.9], there),
        ([1.0, 0.9, 0.8], back), ([1.0, 0.8, 0.9], there), ([1.0, 1.1, 0.9], back),
    ):  # fmt: skip
        went, after = method.tell(params, state, measured([1.0, 0.5, *looked]))
        assert went.tobytes() == place.tobytes()
        assert (after.step, after.skipped) == (1, 0)


def test_a_first_phase_that_leads_nowhere_ends_the_step():
    method = cons()
    params, state = method.init()
    for bad in ([math.nan, 1.0], [1e45, 0.0]):
        assert method.ask(params, state, measured(bad)) == []
        assert method.tell(params, state, measured(bad))[1].nonfinite == 1
    for short in ([1.0, 0.5], [1.0, 0.5, 1.0], [1.0]):
        with pytest.raises(ValueError, match="losses for"):
            method.tell(params, state, measured(short))


def test_halving_halves_both_ways():
    params, state = cons().init()
    row = measured([1.0, 0.5])
    for whole, half in zip(cons().ask(params, state, row), cons().halved(1).ask(params, state, row), strict=True):
        np.testing.assert_allclose((half.params - params) * 2, whole.params - params, atol=1e-6)


def test_it_wraps_a_descent_in_another_space():
    space = WindowSpace(LAYOUT, SEED, 2, 5, "bank")
    f = Quadratic(LAYOUT)
    method = cons(space=space, rate=0.01)
    params, state, journal = run(method, f, 40)
    assert f(params) < f(method.init()[0])
    assert replay(method, journal)[0].tobytes() == params.tobytes()
    assert state.windows == 8
