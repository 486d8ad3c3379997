"""AdaMeZO against Adam on a truncated window, written out in float64, and against Adam itself."""

from dataclasses import replace

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, replay, run
from worker.types import Layout, Module
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.method import gone_back, measured
from worker.zo.methods.adamezo import Recomputed
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Adam, Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS, BETAS = 17, 0.02, 1e-2, (0.9, 0.99)


def recomputed(window=5, queries=1, kind="two_point", decay=0.0, layout=LAYOUT) -> Recomputed:
    space, estimator = AdapterSpace(layout, SEED), Estimator(kind, EPS, queries)
    schedule = Schedule(RATE, "linear", steps=40)
    return Recomputed(space, estimator, Sgd(), schedule, None, decay, beta1=BETAS[0], beta2=BETAS[1], window=window)


def drawn(step: int, query: int):
    return noise.normal(Place(SEED, Stream.PROBE, step, query), LAYOUT.size).astype(np.float64)


@pytest.mark.parametrize("window, queries, decay", [(1, 1, 0.0), (5, 1, 0.0), (7, 3, 0.1)])
def test_equals_adam_on_a_truncated_window(window, queries, decay):
    params, state, journal = run(recomputed(window, queries, decay=decay), Quadratic(LAYOUT), 25)
    theta, gradients = recomputed().init()[0].astype(np.float64), []
    for step, row in enumerate(journal):
        slopes = [(row[2 * q] - row[2 * q + 1]) / (2 * EPS) for q in range(queries)]
        gradients.append(sum(c * drawn(step, q) for q, c in enumerate(slopes)) / queries)
        kept = gradients[-window:][::-1]
        first, second = ([beta**k for k in range(len(kept))] for beta in BETAS)
        m = sum(w * g for w, g in zip(first, kept, strict=True)) / sum(first)
        v = sum(w * g * g for w, g in zip(second, kept, strict=True)) / sum(second)
        rate = RATE * (1 - step / 40)
        theta = (1 - rate * decay) * theta - rate * m / (np.sqrt(v) + 1e-8)
    np.testing.assert_allclose(params, theta, atol=2e-5)
    assert state.buffers[0][:, 0].tolist() == list(range(25 - window, 25))


@pytest.mark.parametrize("kind, queries", [("two_point", 2), ("one_sided", 2), ("population", 3)])
def test_is_adam_while_its_window_lasts_and_then_another(kind, queries):
    ours = recomputed(20, queries, kind)
    adam = Descent(ours.space, ours.estimator, Adam(*BETAS), ours.schedule)
    f = Quadratic(LAYOUT)
    params, state, journal = run(adam, f, 30)
    mine, _ = replay(ours, journal[:20])
    theirs, _ = replay(adam, journal[:20])
    np.testing.assert_allclose(mine, theirs, atol=2e-5)
    assert np.abs(replay(ours, journal)[0] - params).max() > 1e-4  # what is older than the window is gone
    assert state.step == 30


@pytest.mark.parametrize("window, queries", [(4, 1), (10, 3)])
def test_its_state_is_a_few_numbers_whatever_the_adapters_size(window, queries):
    row = measured(np.linspace(0, 1, 2 * queries))
    sizes = []
    for layout in (LAYOUT, Layout(8, 16.0, (Module("x", 500, 400),))):
        method = recomputed(window, queries, layout=layout)
        point = method.init()
        for _ in range(window + 3):
            point = method.tell(*point, row)
        sizes.append(sum(b.nbytes for b in point[1].buffers))
    assert sizes == [4 * window * (1 + queries)] * 2


def test_steps_left_out_and_taken_back_are_not_in_the_window():
    method = recomputed(3)
    params, state, _ = run(method, Quadratic(LAYOUT), 4)
    origin = state
    params, state = method.tell(params, state, measured([np.nan, 1.0]))
    params, state = method.tell(params, state, measured([1.0, 0.5]))
    assert state.buffers[0][:, 0].tolist() == [2, 3, 5]
    _, state = method.tell(params, gone_back(origin, 9), measured([1.0, 0.5]))
    assert state.buffers[0][:, 0].tolist() == [2, 3, 9]
    assert replace(state, buffers=()) == replace(origin, step=10, back=5, buffers=())
