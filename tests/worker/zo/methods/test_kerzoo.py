"""KerZOO against its formula in float64, and the order of its bias."""

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, run
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.methods.kerzoo import Drawn, Kernel, kernel
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS, STEPS = 17, 0.01, 0.1, 25
NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)  # exact for polynomials up to degree 23; of U(-1, 1) half


def descent(queries=3) -> Descent:
    return Descent(AdapterSpace(LAYOUT, SEED), Kernel(EPS, queries, SEED), Sgd(), Schedule(RATE))


@pytest.mark.parametrize("queries", [1, 3])
def test_equals_its_formula(queries):
    f = Quadratic(LAYOUT)
    params, _, journal = run(descent(queries), f, STEPS)
    theta = descent().init()[0].astype(np.float64)
    for step, told in enumerate(journal):
        zs = [noise.normal(Place(SEED, Stream.PROBE, step, q), LAYOUT.size).astype(np.float64) for q in range(queries)]
        rs = [float(noise.uniform(Place(SEED, Stream.RADIUS, step, q), 1, 1.0)[0]) for q in range(queries)]
        expected = [f(theta + s * EPS * r * z) for r, z in zip(rs, zs, strict=True) for s in (1, -1)]
        np.testing.assert_allclose(told, expected, atol=1e-6)
        slopes = [(told[2 * q] - told[2 * q + 1]) / (2 * EPS) for q in range(queries)]
        weights = [c * 15 / 4 * r * (5 - 7 * r**2) for c, r in zip(slopes, rs, strict=True)]
        theta = theta - RATE * sum(w * z for w, z in zip(weights, zs, strict=True)) / queries
    np.testing.assert_allclose(params, theta, atol=2e-6)


def mean_slope(f, eps: float) -> float:
    """E c K(r) over r ~ U(-1, 1), along one direction, by quadrature."""
    drawn = Drawn(eps, tuple(NODES))
    slopes = drawn.slopes([f(radius) for _, radius in drawn.probes])
    return float(np.sum(WEIGHTS * slopes) / 2)


def test_the_kernels_moments():
    moment = {k: float((WEIGHTS * NODES**k * [kernel(r) for r in NODES]).sum() / 2) for k in (0, 1, 2, 3)}
    assert moment == pytest.approx({0: 0, 1: 1, 2: 0, 3: 0}, abs=1e-13)
    second = float((WEIGHTS * NODES**2 * np.square([kernel(r) for r in NODES])).sum() / 2)
    assert second == pytest.approx(6.25)  # the price: a slope's second moment is 6.25 times a two-point one's


def test_bias_falls_from_eps_squared_to_its_fourth_power():
    def f(x: float) -> float:
        return 2 * x + x**2 + 5 * x**3 + 3 * x**5

    def two_point(eps: float) -> float:
        return Estimator("two_point", eps).slopes([f(eps), f(-eps)])[0]

    radii = (0.2, 0.1, 0.05)
    plain, mine = [np.array([abs(of(eps) - 2) for eps in radii]) for of in (two_point, lambda e: mean_slope(f, e))]
    np.testing.assert_allclose(np.log2(plain[:-1] / plain[1:]), 2, atol=0.05)
    np.testing.assert_allclose(np.log2(mine[:-1] / mine[1:]), 4, atol=0.01)
    assert (mine < plain / 10).all()


def test_a_cubic_has_no_bias_left():
    for eps in (1.0, 0.1):
        assert mean_slope(lambda x: 2 * x + 7 * x**3, eps) == pytest.approx(2, abs=1e-12)
        assert Estimator("two_point", eps).slopes([2 * eps + 7 * eps**3, -2 * eps - 7 * eps**3])[0] > 2 + 6 * eps**2


def test_radii_are_drawn_for_each_step_and_query_and_lie_within_eps():
    kernel_ = Kernel(EPS, 4, SEED)
    radii = np.array([kernel_.at(step).radii for step in range(500)])
    assert len(np.unique(radii)) == radii.size
    assert np.abs(radii).min() > 0
    assert np.abs(radii).max() < 1
    assert abs(radii.mean()) < 5 / np.sqrt(3 * radii.size)
    assert (radii**2).mean() == pytest.approx(1 / 3, abs=0.03)
    assert kernel_.at(7) == kernel_.at(7)
    assert kernel_.at(7) != Kernel(EPS, 4, SEED + 1).at(7)
    assert [radius for _, radius in kernel_.at(7).probes[:2]] == [EPS * radii[7, 0], -EPS * radii[7, 0]]
