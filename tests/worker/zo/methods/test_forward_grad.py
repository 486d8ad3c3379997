"""Forward gradients against their formula in float64, and against the gradient that they are the mean of."""

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, run
from worker.zo import noise
from worker.zo.method import Measured
from worker.zo.methods.forward_grad import ForwardGrad
from worker.zo.moving import Rule
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Momentum, Sgd
from worker.zo.schedules import Schedule
from worker.zo.shapes import EVEN, Halves

SEED, RATE = 17, 0.01


def method(queries=1, optimizer=None, decay=0.0, clip=None, shape=EVEN, rate=RATE) -> ForwardGrad:
    return ForwardGrad(LAYOUT, SEED, Rule(optimizer or Sgd(), Schedule(rate), decay), queries, clip, shape)


def tangents(step: int, queries: int) -> list[np.ndarray]:
    return [noise.normal(Place(SEED, Stream.TANGENT, step, q), LAYOUT.size).astype(np.float64) for q in range(queries)]


@pytest.mark.parametrize("queries, a_factor, beta", [(1, 1.0, 0.0), (3, 0.5, 0.9)])
def test_equals_its_formula(queries, a_factor, beta):
    f = Quadratic(LAYOUT)
    shape = Halves(LAYOUT, a_factor)
    params, _, journal = run(method(queries, Momentum(beta), 0.1, None, shape), f, 20)
    theta = method().init()[0].astype(np.float64)
    m = np.zeros_like(theta)
    for step in range(20):
        vs = [shape.shaped(v.astype(np.float32), theta, step).astype(np.float64) for v in tangents(step, queries)]
        slopes = [f.gradient(theta) @ v for v in vs]
        np.testing.assert_allclose(journal[step][1::2], slopes, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(journal[step][::2], f(theta), rtol=1e-4)
        m = beta * m + sum(j * v for j, v in zip(slopes, vs, strict=True)) / queries
        theta = (1 - RATE * 0.1) * theta - RATE * m
    np.testing.assert_allclose(params, theta, atol=1e-4)


def test_its_mean_is_the_gradient():
    """10,000 directions: each entry's error is about |g| / 100."""
    f = Quadratic(LAYOUT)
    params = np.random.default_rng(2).standard_normal(LAYOUT.size).astype(np.float32) / 4
    gradient, many, total = f.gradient(params), 10_000, np.zeros(LAYOUT.size)
    for step in range(many):
        (v,) = tangents(step, 1)
        total += (gradient @ v) * v
    error = np.abs(total / many - gradient).max() / np.linalg.norm(gradient)
    assert error < 4 / np.sqrt(many)
    assert np.abs(gradient).max() / np.linalg.norm(gradient) > 10 / np.sqrt(many)


def test_clip_bounds_the_move_and_a_slope_that_is_missing_is_told():
    params, state = method().init()
    moved, _ = method(clip=2.0).tell(params, state, (Measured(1.0, 1000.0),))
    np.testing.assert_allclose(params - moved, RATE * 2.0 * tangents(0, 1)[0], atol=1e-6)
    with pytest.raises(ValueError, match="was not measured"):
        method().tell(params, state, (Measured(1.0),))
    with pytest.raises(ValueError, match="1 measures for 2 probes"):
        method(2).tell(params, state, (Measured(1.0, 1.0),))
