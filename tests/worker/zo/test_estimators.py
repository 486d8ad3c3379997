"""Slopes against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.zo.estimators import Estimator, clipped

KINDS = ["two_point", "one_sided"]


@pytest.mark.parametrize("kind", KINDS)
@given(queries=st.integers(1, 8), eps=st.floats(1e-4, 1), seed=st.integers(0, 1000))
def test_a_linear_loss_gives_its_directional_derivatives(kind, queries, eps, seed):
    rng = np.random.default_rng(seed)
    gradient, directions = rng.normal(size=6), rng.normal(size=(queries, 6))
    estimator = Estimator(kind, eps, queries)
    losses = np.array([2.0 + radius * gradient @ directions[i] for i, radius in estimator.probes])
    assert len(losses) == estimator.width
    np.testing.assert_allclose(estimator.slopes(losses), directions @ gradient, atol=1e-10)


def test_definitions_on_given_losses():
    assert Estimator("two_point", 0.5, 2).slopes(np.array([3.0, 1.0, 5.0, 6.0])) == (2.0, -1.0)
    assert Estimator("one_sided", 0.5, 2).slopes(np.array([3.0, 1.0, 5.0])) == (-4.0, 4.0)
    assert Estimator("two_point", 0.5, 2).probes == ((0, 0.5), (0, -0.5), (1, 0.5), (1, -0.5))
    assert Estimator("one_sided", 0.5, 2).probes == ((0, 0.0), (0, 0.5), (1, 0.5))


def test_two_point_has_no_second_order_error_and_one_sided_has_eps_over_two():
    """For f(x) = x + x^2 at 0 along z = 1: exactly 1 with both signs, 1 + eps with one."""
    for kind, expected in (("two_point", 1.0), ("one_sided", 1.25)):
        estimator = Estimator(kind, 0.25)
        losses = np.array([radius + radius**2 for _, radius in estimator.probes])
        assert estimator.slopes(losses) == (expected,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_another_width_is_refused(kind):
    with pytest.raises(ValueError, match="losses for"):
        Estimator(kind, 0.1, 3).slopes(np.zeros(5))


def test_clip():
    assert clipped((-3.0, 0.5, 2.0), 1.0) == (-1.0, 0.5, 1.0)
    assert clipped((-3.0, math.pi), None) == (-3.0, math.pi)
