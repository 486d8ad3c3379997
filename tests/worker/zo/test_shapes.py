"""Factors on a direction: A against B, from a step on, one after the other; and what is held still is not decayed."""

import numpy as np
import pytest

from tests.worker.zo.methods.deep import LAYOUT, SEED, made
from tests.worker.zo.problems import Quadratic, run
from worker.zo import noise
from worker.zo.method import measured
from worker.zo.noise import Place, Stream
from worker.zo.shapes import Both, Halves

STEPS, RATE, EPS, DECAY = 24, 0.02, 1e-2, 0.1


def halves(params):
    return [x.tobytes() for _, x, _ in LAYOUT.pairs(params)], [x.tobytes() for _, _, x in LAYOUT.pairs(params)]


@pytest.mark.parametrize("weight_decay", [0.0, DECAY])
def test_with_a_factor_of_0_the_bits_of_a_stay(weight_decay):
    method = made("mezo", a_factor=0, weight_decay=weight_decay)
    start, state = method.init()
    for probe in method.ask(start, state, ()):
        assert halves(probe.params)[0] == halves(start)[0]
    params, _, _ = run(method, Quadratic(LAYOUT), STEPS)
    assert halves(params)[0] == halves(start)[0]
    assert all(a != b for a, b in zip(halves(params)[1], halves(start)[1], strict=True))


@pytest.mark.parametrize("since", [0, 9])
def test_equals_its_formula(since):
    """theta <- (1 - lr wd) theta - lr c D z with D of A `a` from step `since` on, before that A as it is."""
    method = made("mezo", RATE, a_factor=0.3, a_from=since, weight_decay=DECAY)
    f = Quadratic(LAYOUT)
    params, _, journal = run(method, f, STEPS)
    theta = method.init()[0].astype(np.float64)
    is_a = np.zeros(LAYOUT.size, dtype=bool)
    for i in range(len(LAYOUT.modules)):
        is_a[LAYOUT.offsets[2 * i] : LAYOUT.offsets[2 * i + 1]] = True
    for step in range(STEPS):
        factor = np.where(is_a, 0.3 if step >= since else 0.0, 1.0)
        z = factor * noise.normal(Place(SEED, Stream.PROBE, step), LAYOUT.size)
        np.testing.assert_allclose(journal[step], [f(theta + EPS * z), f(theta - EPS * z)], atol=1e-6)
        c = (journal[step][0] - journal[step][1]) / (2 * EPS)
        theta = theta * np.where(factor == 0, 1, 1 - RATE * DECAY) - RATE * c * z
    np.testing.assert_allclose(params, theta, atol=2e-6)


def test_a_joins_at_its_step():
    method = made("mezo", a_from=3)
    params, state = method.init()
    start = halves(params)[0]
    for step in range(4):
        params, state = method.tell(params, state, measured([1.0, 0.0]))
        assert (halves(params)[0] == start) == (step < 3)


def test_both_multiply():
    z = np.ones(LAYOUT.size, dtype=np.float32)
    shape = Both(Halves(LAYOUT, 0.5), Halves(LAYOUT, 0.25))
    for _, a, b in LAYOUT.pairs(shape.shaped(z, z, 0)):
        assert (a == 0.125).all()
        assert (b == 1).all()
