"""One scalar second moment: against its formula in float64, and against Adam's moves."""

import math

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, replay, run
from worker.types import Layout, Module
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.method import measured
from worker.zo.methods.meazo import Scaled
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Adam, Sgd
from worker.zo.schedules import Schedule
from worker.zo.shapes import Halves

SEED, RATE, EPS, BETA = 17, 0.02, 1e-2, 0.9
LARGE = Layout(8, 16.0, (Module("x", 300, 300),))


def scaled(layout=LAYOUT, queries=1, decay=0.0, beta=BETA, shape=None) -> Scaled:
    space, estimator = AdapterSpace(layout, SEED), Estimator("two_point", EPS, queries)
    shaped = {} if shape is None else {"shape": shape}
    return Scaled(space, estimator, Sgd(), Schedule(RATE), None, decay, beta=beta, **shaped)


@pytest.mark.parametrize("queries, decay", [(1, 0.0), (3, 0.1)])
def test_equals_its_formula(queries, decay):
    params, state, journal = run(scaled(queries=queries, decay=decay), Quadratic(LAYOUT), 25)
    theta, v = scaled().init()[0].astype(np.float64), 0.0
    for step, row in enumerate(journal):
        slopes = [(row[2 * q] - row[2 * q + 1]) / (2 * EPS) for q in range(queries)]
        zs = [noise.normal(Place(SEED, Stream.PROBE, step, q), LAYOUT.size).astype(np.float64) for q in range(queries)]
        g = sum(c * z for c, z in zip(slopes, zs, strict=True)) / queries
        v = BETA * v + (1 - BETA) * sum(c * c for c in slopes) / queries**2
        size = math.sqrt(v / (1 - BETA ** (step + 1))) + 1e-8
        theta = (1 - RATE * decay) * theta - RATE * g / size
    np.testing.assert_allclose(params, theta, atol=2e-6)
    assert [b.shape for b in state.buffers] == [(1,)]
    assert state.buffers[0][0] == pytest.approx(v, rel=1e-5)


@pytest.mark.parametrize("queries, a", [(1, 1.0), (4, 1.0), (4, 0.0)])
def test_moves_as_far_as_adam_within_a_hundredth(queries, a):
    """Of Adam without a first moment, once it has averaged over enough steps for each entry to have its mean."""
    shape = Halves(LARGE, a)
    ours = scaled(LARGE, queries, beta=0.999, shape=shape)
    adam = Descent(ours.space, ours.estimator, Adam(0.0, 0.999), ours.schedule, shape=shape)
    rng = np.random.default_rng(0)
    mine, theirs = ours.init(), adam.init()
    for step in range(600):
        heard = measured(rng.normal(size=2 * queries))
        before = mine[0], theirs[0]
        mine, theirs = ours.tell(*mine, heard), adam.tell(*theirs, heard)
        if step >= 590:
            far = [float(np.linalg.norm(x - y)) for x, y in zip((mine[0], theirs[0]), before, strict=True)]
            assert far[0] == pytest.approx(far[1], rel=0.01)
    assert len(mine[1].buffers[0]) == 1
    assert len(theirs[1].buffers[0]) == LARGE.size


def test_scaling_all_losses_leaves_the_moves():
    f = Quadratic(LAYOUT)
    params, _, journal = run(scaled(), f, 20)
    again, _ = replay(scaled(), [[1024 * loss for loss in row] for row in journal])
    np.testing.assert_allclose(again, params, atol=1e-6)


def test_a_flat_loss_moves_nothing_and_what_overflows_is_left_out():
    params, state = scaled().init()
    same, state = scaled().tell(params, state, measured([1.0, 1.0]))
    assert same.tobytes() == params.tobytes()
    assert state.skipped == 0
    same, state = scaled().tell(params, state, measured([1e20, -1e20]))  # its square is infinite in float32
    assert same.tobytes() == params.tobytes()
    assert (state.skipped, state.buffers[0][0]) == (1, 0.0)
