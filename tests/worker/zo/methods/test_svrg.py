"""MeZO-SVRG against its formula in float64 on a finite sum; what the anchor takes away, and when it is refreshed."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.worker.zo.methods.deep import LAYOUT, SEED, made
from worker.zo import noise
from worker.zo.method import gone_back, measured
from worker.zo.noise import Place, Stream

ROWS, BATCH, EPS, RATE = 24, 4, 1e-2, 0.02
BY = {"anchor_every": 5, "anchor_rows": ROWS, "anchor_queries": 2}


class Sum:
    """f = mean over rows of d_i |theta - t_i|^2 / 2; `alike` rows have d_i = 1, others 1/2 to 3/2. Its minibatch of a
    step is of BATCH rows in turn."""

    def __init__(self, alike: bool = True) -> None:
        rng = np.random.default_rng(4)
        self.targets = 0.3 * rng.normal(size=(ROWS, LAYOUT.size))
        self.bends = np.ones(ROWS) if alike else rng.uniform(0.5, 1.5, ROWS)

    def __call__(self, theta, rows) -> float:
        rows = list(rows)
        away = ((np.asarray(theta, np.float64) - self.targets[rows]) ** 2).sum(1)
        return float((self.bends[rows] * away).mean() / 2)

    def best(self):
        return (self.bends[:, None] * self.targets).sum(0) / self.bends.sum()

    def batch(self, step):
        return [(step * BATCH + i) % ROWS for i in range(BATCH)]


def heard(method, params, state, f, batch):
    """The step's losses, each on the rows that its probe is for."""
    return [f(p.params, batch if p.rows is None else p.rows) for p in method.ask(params, state, ())]


def driven(method, f, steps):
    params, state = method.init()
    journal = []
    for step in range(steps):
        journal.append(heard(method, params, state, f, f.batch(step)))
        params, state = method.tell(params, state, measured(journal[-1]))
    return params, state, journal


def z(step, query):
    return noise.normal(Place(SEED, Stream.PROBE, step, query), LAYOUT.size).astype(np.float64)


@pytest.mark.parametrize("queries, factor, decay", [(1, 1.0, 0.0), (2, 3.0, 0.1)])
def test_equals_its_formula(queries, factor, decay):
    f = Sum(alike=False)
    more = {"queries": queries, "anchor_factor": factor, "weight_decay": decay}
    method = made("svrg", RATE / 10, **BY, **more)
    params, _, journal = driven(method, f, 23)
    theta = method.init()[0].astype(np.float64)
    every = range(ROWS)
    for step, told in enumerate(journal):
        if step % 5 == 0:
            anchor, rate, zs = theta, factor * RATE / 10, [z(step, j) for j in range(2)]
            losses = [f(theta + s * EPS * one, every) for one in zs for s in (1, -1)]
            big = g = sum((told[2 * j] - told[2 * j + 1]) / (2 * EPS) * one for j, one in enumerate(zs)) / 2
        else:
            rate, zs = RATE / 10, [z(step, i) for i in range(queries)]
            centres, batch = (theta, anchor), f.batch(step)
            losses = [f(at + s * EPS * one, batch) for at in centres for one in zs for s in (1, -1)]
            slopes = [(told[2 * i] - told[2 * i + 1]) / (2 * EPS) for i in range(2 * queries)]
            g = big + sum((slopes[i] - slopes[queries + i]) * one for i, one in enumerate(zs)) / queries
        np.testing.assert_allclose(told, losses, atol=1e-5)
        theta = (1 - rate * decay) * theta - rate * g
    np.testing.assert_allclose(params, theta, atol=2e-5)


def estimates(method, params, state, f):
    """theta - lr g over lr, of one step for each minibatch of an epoch [batches, P]."""
    moves = []
    for step in range(ROWS // BATCH):
        row = heard(method, params, state, f, f.batch(step))
        moves.append((params - method.tell(params, state, measured(row))[0]).astype(np.float64) / RATE)
    return np.array(moves)


def at_distance(distance):
    """The method a step after a refresh, theta so far from the anchor; and MeZO where it is."""
    method, plain, f = made("svrg", RATE, **BY), made("mezo", RATE), Sum(alike=False)
    params, state = method.init()
    moved, state = method.tell(params, state, measured(heard(method, params, state, f, ())))
    way = (moved - params) / np.linalg.norm(moved - params)
    return method, params + np.float32(distance) * way, state, plain, replace(plain.init()[1], step=state.step), f


def test_minibatches_of_rows_that_bend_alike_say_the_same():
    """g(batch, theta) - g(batch, anchor) has nothing of a row in it then, so the variance over minibatches is 0."""
    method, params, state, plain, at, _ = at_distance(0.5)
    f = Sum(alike=True)
    ours, theirs = (estimates(*one, f).std(0).max() for one in ((method, params, state), (plain, params, at)))
    assert theirs > 1
    assert ours < 1e-3 * theirs


def test_the_variance_over_minibatches_falls_with_the_distance_to_the_anchor():
    spread = {}
    for distance in (0.01, 0.1, 1.0):
        method, params, state, plain, at, f = at_distance(distance)
        spread[distance] = (
            estimates(method, params, state, f).var(0).sum() / estimates(plain, params, at, f).var(0).sum()
        )
    assert spread[0.01] < 1e-3
    assert spread[0.1] < 0.01
    assert spread[0.01] < spread[0.1] < spread[1.0] < 1


def test_in_the_mean_over_minibatches_it_is_that_of_all_rows():
    """sum over the batches of an epoch: z (c(all, theta) - c(all, anchor)) + G."""
    method, params, state, _, _, f = at_distance(0.3)
    (anchor,) = state.anchor
    slopes = [
        (f(x + EPS * z(1, 0), range(ROWS)) - f(x - EPS * z(1, 0), range(ROWS))) / (2 * EPS)
        for x in (params.astype(np.float64), anchor.astype(np.float64))
    ]
    big = sum(c * z(0, j) for j, c in enumerate(state.slopes)) / 2
    mean = estimates(method, params, state, f).mean(0)
    np.testing.assert_allclose(mean, (slopes[0] - slopes[1]) * z(1, 0) + big, atol=5e-3)


def test_at_the_anchor_itself_a_step_follows_the_anchor_s_estimate_alone():
    """The official code draws another z for each of the two slopes: nothing would cancel here."""
    method, f = made("svrg", RATE, **BY), Sum()
    params, state = method.init()
    first, state = method.tell(params, state, measured(heard(method, params, state, f, ())))
    again, _ = method.tell(params, state, measured(heard(method, params, state, f, f.batch(1))))
    np.testing.assert_allclose(again, first, atol=1e-6)
    c = [f(params + s * EPS * z(1, 0), f.batch(1)) for s in (1, -1)]
    assert abs((c[0] - c[1]) / (2 * EPS)) * RATE > 1e-3  # what another z would have left


def test_the_anchor_is_a_place_of_its_own_and_moves_at_refreshes_only():
    """The official code copies a list of the model's own tensors: its anchor follows every step."""
    method, f = made("svrg", RATE, **BY), Sum()
    params, state = method.init()
    met = []
    for step in range(12):
        before = params
        params, state = method.tell(params, state, measured(heard(method, params, state, f, f.batch(step))))
        assert state.taken == step - step % 5
        if step % 5 == 0:
            assert state.anchor[0].tobytes() == before.tobytes()
        met.append(state.anchor[0].tobytes())
    assert len(set(met)) == 3
    assert state.anchor[0].tobytes() != params.tobytes()


def test_probes_of_a_refresh_are_for_the_anchor_rows_and_others_for_the_minibatch():
    method = made("svrg", **{**BY, "anchor_queries": 3})
    params, state = method.init()
    assert [list(p.rows) for p in method.ask(params, state, ())] == [list(range(ROWS))] * 6
    _, state = method.tell(params, state, measured([1.0, 0.5] * 3))
    assert [p.rows for p in method.ask(params, state, ())] == [None] * 4
    assert method.most == 6


def test_a_refresh_that_is_not_finite_keeps_the_anchor_it_has_and_without_one_is_tried_again():
    method = made("svrg", **BY)
    params, state = method.init()
    _, state = method.tell(params, state, measured([math.nan, 1.0, 1.0, 1.0]))
    assert (state.anchor, state.step, state.skipped) == ((), 1, 1)
    assert method.ask(params, state, ())[0].rows is not None
    params, state = method.tell(params, state, measured([1.0, 0.5, 2.0, 1.0]))
    kept = state.anchor[0]
    state = replace(state, step=5)
    same, after = method.tell(params, state, measured([math.inf, 1.0, 1.0, 1.0]))
    assert same.tobytes() == params.tobytes()
    assert (after.anchor[0] is kept, after.taken, after.step) == (True, 1, 6)
    assert method.ask(params, after, ())[0].rows is None


def test_a_run_that_goes_back_has_the_anchor_of_where_it_goes():
    method, f = made("svrg", RATE, **BY), Sum()
    params, state, _ = driven(method, f, 7)
    after = gone_back(state, 12)
    assert after.anchor[0] is state.anchor[0]
    rows = [p.rows for p in method.ask(params, after, ())]
    assert rows == [None] * 4


@pytest.mark.parametrize("count", [0, 2, 3, 5, 8])
def test_losses_of_another_number_of_probes_are_refused(count):
    method = made("svrg", **BY)
    params, state = method.init()
    with pytest.raises(ValueError, match="losses for"):
        method.tell(params, state, measured([1.0] * count))
    _, state = method.tell(params, state, measured([1.0, 0.5, 2.0, 1.0]))
    with pytest.raises(ValueError, match="losses for"):
        method.tell(params, state, measured([1.0] * count))


def test_reaches_the_least_of_the_sum_and_replays_to_the_bit():
    f = Sum(alike=False)
    method = made("svrg", 3e-3, **{**BY, "anchor_queries": 8}, steps=900)
    params, state, journal = driven(method, f, 900)
    start, least = f(method.init()[0], range(ROWS)), f(f.best(), range(ROWS))
    assert f(params, range(ROWS)) - least < 0.05 * (start - least)
    again, its_state = method.init()
    for row in journal:
        again, its_state = method.tell(again, its_state, measured(row))
    assert again.tobytes() == params.tobytes()
    assert its_state.anchor[0].tobytes() == state.anchor[0].tobytes()
