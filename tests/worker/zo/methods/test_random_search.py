"""Random search: what it tries, what it keeps, and that it never leaves the surroundings of its start."""

import math

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, replay, run
from worker.zo import noise
from worker.zo.method import measured
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.methods.random_search import RandomSearch
from worker.zo.noise import Place, Stream
from worker.zo.schedules import Schedule

SEED, RADIUS = 17, 0.125


def search(candidates=3, kind="constant") -> RandomSearch:
    return RandomSearch(AdapterSpace(LAYOUT, SEED), candidates, Schedule(RADIUS, kind, steps=60))


def drawn(step: int, query: int):
    return noise.normal(Place(SEED, Stream.PROBE, step, query), LAYOUT.size).astype(np.float64)


@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_keeps_the_best_perturbation_of_the_start_that_it_has_seen(kind):
    f, method = Quadratic(LAYOUT), search(kind=kind)
    params, state, journal = run(method, f, 60)
    start = method.init()[0].astype(np.float64)
    tried = {
        (step, q): start + RADIUS * (1 - step / 60 if kind == "linear" else 1) * drawn(step, q)
        for step in range(60)
        for q in range(3)
    }
    best = min(tried, key=lambda place: f(tried[place]))
    assert f(tried[best]) < f(start)
    assert state.found == best
    np.testing.assert_allclose(params, tried[best], atol=1e-5)  # it came there over several incumbents
    assert [row[0] for row in journal] == sorted((row[0] for row in journal), reverse=True)


def test_the_incumbent_is_scored_beside_fresh_ones_and_keeps_its_place_where_equal():
    method = search()
    params, state = method.init()
    for losses, found in (([1.0, 1.0, 1.0, 1.0], None), ([1.0, 2.0, 0.5, 0.7], (1, 1)), ([0.5, 0.5, 0.9, 0.5], None)):
        incumbent, *others = (probe.params for probe in method.ask(params, state, ()))
        assert incumbent.tobytes() == params.tobytes()
        for q, other in enumerate(others):
            start = method.init()[0].astype(np.float64)
            np.testing.assert_allclose(other, start + RADIUS * drawn(state.step, q), atol=1e-6)
        after, later = method.tell(params, state, measured(losses))
        if found is None:
            assert after.tobytes() == params.tobytes()
        else:
            assert after.tobytes() == others[1].tobytes()
            assert later.found == found
        params, state = after, later
    assert (state.step, state.skipped) == (3, 0)


def test_it_starts_where_it_is_put():
    """A job that goes on from another's adapter looks around that one."""
    method = search()
    other = method.init()[0] + np.float32(1)
    state = method.init()[1]
    found, state = method.tell(other, state, measured([1.0, 0.5, 2.0, 2.0]))
    np.testing.assert_allclose(found - other, RADIUS * drawn(0, 0), atol=1e-6)
    probe = method.ask(found, state, ())[1].params
    np.testing.assert_allclose(probe - other, RADIUS * drawn(1, 0), atol=1e-6)


def test_what_is_not_finite_is_left_out_and_a_short_row_refused():
    method = search()
    params, state = method.init()
    for bad in (math.nan, -math.inf):
        same, after = method.tell(params, state, measured([1.0, 1.0, bad, 1.0]))
        assert same.tobytes() == params.tobytes()
        assert (after.skipped, after.found) == (1, (0, 0))
    with pytest.raises(ValueError, match="losses for"):
        method.tell(params, state, measured([1.0]))


def test_halving_looks_half_as_far_and_replays():
    params, state = search().init()
    for whole, half in zip(search().ask(params, state, ()), search().halved(1).ask(params, state, ()), strict=True):
        np.testing.assert_allclose((half.params - params) * 2, whole.params - params, atol=1e-6)
    done, _, journal = run(search(), Quadratic(LAYOUT), 30)
    assert replay(search(), journal)[0].tobytes() == done.tobytes()
