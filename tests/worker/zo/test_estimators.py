"""Slopes against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.zo.estimators import Estimator, Signs, Standardised, clipped

KINDS = ["two_point", "one_sided"]
OWN = {
    "population": Estimator("population", 0.1, 3),
    "signs": Signs(0.1, 2),
    "fzoo": Standardised("centre", 0.1, 3, "sample"),
    "es": Standardised("mean", 0.1, 3),
}


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


@pytest.mark.parametrize("name", OWN)
def test_a_row_of_another_width_is_refused_by_every_estimator(name):
    assert len(OWN[name].slopes([0.0] * OWN[name].width)) == len({query for query, _ in OWN[name].probes})
    with pytest.raises(ValueError, match=f"losses for {OWN[name].width} probes"):
        OWN[name].slopes([0.0] * (OWN[name].width + 1))


def test_a_population_is_exact_in_expectation_on_a_linear_loss():
    """Over all 2^6 sets of three directions with entries of 1 and -1, the mean estimate is the gradient."""
    gradient, eps = np.array([0.7, -0.2]), 0.25
    estimator = Estimator("population", eps, 3)
    total = np.zeros(2)
    for bits in range(2**6):
        z = np.array([1.0 if bits >> i & 1 else -1.0 for i in range(6)]).reshape(3, 2)
        losses = [5.0 + radius * gradient @ z[query] for query, radius in estimator.probes]
        total += np.array(estimator.slopes(losses)) @ z / 3
    np.testing.assert_allclose(total / 2**6, gradient, atol=1e-13)


@given(shift=st.floats(-1e3, 1e3), losses=st.lists(st.floats(0, 10), min_size=2, max_size=16))
def test_a_constant_added_to_a_populations_losses_moves_rounding_only(shift, losses):
    estimator = Estimator("population", 0.01, len(losses))
    shifted = estimator.slopes([loss + shift for loss in losses])
    assert estimator.probes == tuple((i, 0.01) for i in range(len(losses)))  # no centre to take it off with
    np.testing.assert_allclose(shifted, estimator.slopes(losses), atol=1e-9)


def test_definitions_of_the_others_on_given_losses():
    assert OWN["population"].slopes([1.0, 2.0, 6.0]) == pytest.approx((-30.0, -15.0, 45.0))
    assert OWN["signs"].slopes([1.0, 2.0, 6.0, 6.0]) == (-1.0, 0.0)
    std = math.sqrt(14 / 2)  # of 1, 2, 6 about 3
    assert OWN["fzoo"].slopes([2.0, 1.0, 2.0, 6.0]) == pytest.approx((-1 / std, 0.0, 4 / std))
    std = math.sqrt(14 / 3)
    assert OWN["es"].slopes([1.0, 2.0, 6.0]) == pytest.approx((-2 / std, -1 / std, 3 / std))
    assert Standardised("mean", 0.1, 3, gain=2.0).slopes([1.0, 2.0, 6.0])[2] == pytest.approx(6 / std)


@given(losses=st.lists(st.floats(-1e300, 1e300), min_size=4, max_size=4))
def test_weights_are_numbers_whatever_finite_losses_are(losses):
    """An overflow is not finite, which a descent leaves out; nothing is raised."""
    for estimator in (OWN["fzoo"], Standardised("mean", 0.1, 4), Signs(0.1, 2)):
        assert all(isinstance(weight, float) for weight in estimator.slopes(losses))
    if np.ptp(losses) < 1e300 and np.ptp(losses[1:]) > 0:
        assert np.isfinite(Standardised("mean", 0.1, 4).slopes(losses)).all()


def test_a_centre_far_off_losses_that_are_nearly_equal_is_no_error():
    weights = OWN["fzoo"].slopes([1.0, 5e-324, 0.0, 0.0])
    assert not np.isfinite(weights).any()  # a step to leave out


def test_clip():
    assert clipped((-3.0, 0.5, 2.0), 1.0) == (-1.0, 0.5, 1.0)
    assert clipped((-3.0, math.pi), None) == (-3.0, math.pi)
