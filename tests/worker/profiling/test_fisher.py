"""Fisher information against brute force, squared gradients without noise, and the bound against what is tried."""

from itertools import combinations

import numpy as np
import pytest

from tests.worker.profiling.toys import LAYOUT, Bowls
from worker.profiling import fisher
from worker.runs import profiles

COUNT = len(LAYOUT.shapes)
TARGETS = np.random.default_rng(2).normal(size=LAYOUT.size)


def bowls(**changed):
    return Bowls(LAYOUT, **{"curvature": (1.0, 4.0, 0.5, 2.0), "targets": TARGETS, **changed})


def test_fisher_of_an_entry_is_brute_forces():
    """The definition: every row's own loss, every entry moved by itself, both ways."""
    f, params = bowls(), np.zeros(LAYOUT.size, np.float32)
    found = fisher.measure(f, LAYOUT, params)
    brute = np.zeros(LAYOUT.size)
    for entry in range(LAYOUT.size):
        step = np.zeros(LAYOUT.size)
        step[entry] = 1e-4
        slopes = [(f.loss(params + step, [r]) - f.loss(params - step, [r])) / 2e-4 for r in range(f.rows)]
        brute[entry] = np.mean(np.square(slopes))
    np.testing.assert_allclose(found.fisher, brute, rtol=1e-5, atol=1e-8)
    wanted = [brute[a:b].sum() for a, b in zip(LAYOUT.offsets[:-1], LAYOUT.offsets[1:], strict=True)]
    np.testing.assert_allclose(found.trace, wanted, rtol=1e-5)


def test_the_squared_gradient_is_the_product_of_two_halves_over_every_way_to_halve():
    f, params = bowls(rows=6, spread=1.0), np.zeros(LAYOUT.size, np.float32)
    products = []
    for half in combinations(range(6), 3):
        rest = [row for row in range(6) if row not in half]
        products.append(f.gradient(params, half).astype(float) * f.gradient(params, rest).astype(float))
    wanted = np.add.reduceat(np.mean(products, axis=0), LAYOUT.offsets[:-1])
    np.testing.assert_allclose(fisher.measure(f, LAYOUT, params).squared, wanted, rtol=1e-4)


def test_the_squared_gradient_is_unbiased_where_its_square_is_not():
    """At the very bottom the gradient is 0, and all that a mean of rows has is noise: over many draws of the rows the
    product of halves is 0 within its standard error, the square of the mean far above."""
    products, squares = [], []
    for draw in range(200):
        targets = np.random.default_rng(100 + draw).normal(size=LAYOUT.size)
        f = Bowls(LAYOUT, (1.0,) * COUNT, 0 * targets, rows=10, spread=1.0)
        params = (0.1 * targets).astype(np.float32)  # other centres relative to the rows' each time
        there = 0.01 * float((targets**2).sum())
        measured = fisher.measure(f, LAYOUT, params)
        mean = f.gradient(params, range(10)).astype(np.float64)
        products.append(measured.squared.sum() - there)
        squares.append(float(mean @ mean) - there)
    noise = LAYOUT.size / 10
    assert abs(np.mean(products)) < 0.4 * noise
    assert np.mean(squares) == pytest.approx(noise, rel=0.5)


def test_a_mask_is_the_top_share_and_never_of_what_has_none():
    values = np.array([0.0, 3.0, 1.0, 3.0, 0.0, 2.0, 0.0, 0.0, 5.0, 0.0])

    def kept(share):
        return np.flatnonzero(np.unpackbits(fisher.mask(values, share), count=10)).tolist()

    assert [kept(share) for share in (0.01, 0.2, 0.3, 1.0)] == [[8], [1, 8], [1, 3, 8], [1, 2, 3, 5, 8]]


def test_factors_are_powers_of_the_ratio():
    found = fisher.Measures(np.zeros(1), np.array([4.0, 1.0, -1.0, 2.0]), np.array([2.0, 2.0, 1.0, 0.0]), 9)
    np.testing.assert_allclose(fisher.factors(found, 1.0), np.sqrt([1.0, 0.25, 0, 0]), rtol=1e-6)
    np.testing.assert_allclose(fisher.factors(found, 2.0), [1.0, 0.25, 0, 0], rtol=1e-6)


def test_no_factors_are_better_than_the_bound_and_the_bound_is_reached():
    measures = fisher.measure(bowls(), LAYOUT, np.zeros(LAYOUT.size, np.float32))
    found = fisher.bound(measures)

    def gain(variances):
        even = measures.squared.sum() / measures.trace.sum()
        return (variances @ measures.squared) / (variances @ measures.trace) / even

    tried = np.random.default_rng(1).exponential(size=(2000, COUNT))
    assert max(map(gain, tried)) <= found.best + 1e-12
    assert gain(np.eye(COUNT)[found.tensor]) == pytest.approx(found.best)
    gains = [g for _, g in found.powers]
    assert 1 < gains[0] < gains[1] < gains[2] < found.best
    for power, value in found.powers:
        assert gain(np.square(fisher.factors(measures, power).astype(np.float64))) == pytest.approx(value, rel=1e-5)


def test_what_cannot_be_measured_is_said():
    with pytest.raises(ValueError, match="two rows"):
        fisher.measure(bowls(rows=1), LAYOUT, np.zeros(LAYOUT.size, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        fisher.measure(bowls(targets=TARGETS * np.inf), LAYOUT, np.zeros(LAYOUT.size, np.float32))
    lost = fisher.Measures(np.zeros(1), -np.ones(COUNT), np.ones(COUNT), 2)
    with pytest.raises(ValueError, match="measure more rows"):
        fisher.bound(lost)
    with pytest.raises(profiles.BadProfile, match="sum of its factors is 0"):
        profiles.written("factors", "b", "m", LAYOUT, {"factors": fisher.factors(lost, 1.0)})
