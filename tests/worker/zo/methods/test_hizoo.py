"""HiZOO against its formula in float64, and what it finds on a quadratic."""

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, run
from worker.types import Layout, Module
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.method import measured
from worker.zo.methods.hizoo import LEAST, MOST, Curved, Hizoo
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule
from worker.zo.shapes import EVEN, Halves

SEED, RATE, EPS = 17, 0.05, 1e-2
SMALL = Layout(1, 2.0, (Module("x", 2, 2),))  # 4 parameters


def hizoo(layout=LAYOUT, smoothing=0.01, rate=RATE, decay=0.0, shape=EVEN) -> Hizoo:
    descent = Descent(Curved(layout, SEED), Estimator("two_point", EPS), Sgd(), Schedule(rate), None, decay, shape)
    return Hizoo(descent, smoothing)


@pytest.mark.parametrize("decay, a", [(0.0, 1.0), (0.1, 0.5)])
def test_equals_its_formula(decay, a):
    f = Quadratic(LAYOUT)
    params, state, journal = run(hizoo(decay=decay, shape=Halves(LAYOUT, a)), f, 25)
    theta, h = hizoo().init()[0].astype(np.float64), np.ones(LAYOUT.size)
    factor = np.ones(LAYOUT.size)
    for i in range(len(LAYOUT.modules)):
        factor[LAYOUT.offsets[2 * i] : LAYOUT.offsets[2 * i + 1]] = a
    for step, (centre, up, down) in enumerate(journal):
        z = noise.normal(Place(SEED, Stream.PROBE, step), LAYOUT.size).astype(np.float64)
        d = factor * z / np.sqrt(h)
        np.testing.assert_allclose((centre, up, down), [f(theta), f(theta + EPS * d), f(theta - EPS * d)], atol=1e-5)
        theta = (1 - RATE * decay) * theta - RATE * (up - down) / (2 * EPS) * d
        h = 0.99 * h + 0.01 * abs(up + down - 2 * centre) / (2 * EPS**2) * h * z**2
    np.testing.assert_allclose(params, theta, atol=1e-5)
    np.testing.assert_allclose(state.buffers[0], h, rtol=1e-4)


def test_finds_the_diagonal_of_a_quadratic_up_to_scale():
    """L = sum D x^2 / 2 has |L+ + L- - 2 L0| = eps^2 d^T D d exactly; H settles at (1 + n/2) D in the mean. Over so
    many steps an entry of that mean has a standard error of 6 %; the diagonal spans a factor of 27."""
    diagonal = np.array([1.0, 3.0, 9.0, 27.0])
    method = hizoo(SMALL, smoothing=4e-3, rate=1e-9)
    params, state = method.init()
    met = []
    for step in range(8000):
        z = noise.normal(Place(SEED, Stream.PROBE, step), SMALL.size).astype(np.float64)
        bent = EPS**2 / 2 * float((diagonal * z**2 / state.buffers[0]).sum())
        params, state = method.tell(params, state, measured([0.0, bent, bent]))
        if step >= 2000:
            met.append(state.buffers[0])
    scale = np.mean(met, axis=0) / diagonal
    np.testing.assert_allclose(scale / scale.mean(), 1.0, atol=0.2)
    assert scale.mean() == pytest.approx(1 + len(diagonal) / 2, rel=0.1)


def test_the_move_is_along_what_was_measured():
    """The official code divides by the root of the new H: a direction that nobody probed."""
    method = hizoo(smoothing=0.3)
    params, state = method.init()
    params, state = method.tell(params, state, measured([0.0, 1.0, 0.5]))
    _, up, _ = (probe.params for probe in method.ask(params, state, ()))
    moved, after = method.tell(params, state, measured([0.0, 1.0, 0.5]))
    slope = 0.5 / (2 * EPS)
    np.testing.assert_allclose(params - moved, RATE * slope * (up - params) / EPS, atol=2e-3 * RATE * slope)
    new = noise.normal(Place(SEED, Stream.PROBE, 1), LAYOUT.size) / np.sqrt(after.buffers[0])
    assert np.abs((params - moved) - RATE * slope * new).max() > 0.1 * RATE * slope


def test_h_stays_in_its_range():
    method = hizoo(smoothing=0.5)
    flat, steep = method.init(), method.init()
    for _ in range(40):
        flat = method.tell(*flat, measured([1.0, 1.0, 1.0]))
        steep = method.tell(*steep, measured([0.0, 1e30, 1e30]))
    assert set(flat[1].buffers[0]) == {np.float32(LEAST)}
    assert steep[1].buffers[0].max() == MOST
    assert steep[1].skipped == 0
    assert np.isfinite(method.ask(*steep, ())[1].params).all()


def test_a_centre_that_is_not_finite_counts_as_any_loss():
    params, state = hizoo().init()
    same, after = hizoo().tell(params, state, measured([np.nan, 1.0, 0.5]))
    assert same.tobytes() == params.tobytes()
    assert after.skipped == 1
    assert after.buffers[0] is state.buffers[0]
