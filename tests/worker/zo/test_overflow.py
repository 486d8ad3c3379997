"""Finite losses that ask for what float32 cannot hold: such a step is left out as one without finite losses is."""

import warnings

import numpy as np
import pytest

from tests.worker.zo.problems import WIDE, Quadratic, arrays, run
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.method import finite, measured
from worker.zo.methods.lozo import WindowSpace
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.optimizers import Adam, Momentum, Sgd
from worker.zo.schedules import Schedule

EPS = 1e-3
OPTIMIZERS = {
    "sgd": Sgd(),
    "momentum": Momentum(0.9),
    "averaged": Momentum(0.9, dampening=0.9),
    "adam": Adam(0.9, 0.999),
}
SPACES = {"adapter": AdapterSpace(WIDE, 3), "windows": WindowSpace(WIDE, 3, 2, 5, "recompress")}
everywhere = [
    pytest.mark.parametrize("space", SPACES),
    pytest.mark.parametrize("optimizer", OPTIMIZERS),
    pytest.mark.parametrize("kind", ["two_point", "one_sided"]),
]


def descent(kind, optimizer, space, clip=None, rate=0.01) -> Descent:
    return Descent(SPACES[space], Estimator(kind, EPS, 2), OPTIMIZERS[optimizer], Schedule(rate), clip)


def row(method: Descent, slope: float):
    """Losses of which each query has this slope."""
    apart = slope * EPS if method.estimator.kind == "one_sided" else 2 * slope * EPS
    losses = [0.0, apart, apart] if method.estimator.kind == "one_sided" else [apart, 0.0, apart, 0.0]
    assert np.isfinite(losses).all()
    return measured(losses)


def left_out(method: Descent, params, state, heard):
    same, after = method.tell(params, state, heard)
    assert same.tobytes() == params.tobytes()
    assert [x.tobytes() for x in arrays(after)] == [x.tobytes() for x in arrays(state)]
    assert (after.step, after.skipped, after.nonfinite) == (state.step + 1, state.skipped + 1, state.nonfinite + 1)
    return after


@everywhere[0]
@everywhere[1]
@everywhere[2]
def test_losses_of_1e40_leave_params_and_buffers_as_they_were(kind, optimizer, space):
    method = descent(kind, optimizer, space)
    params, state, _ = run(method, Quadratic(WIDE), 5)  # the next step of `windows` is next to a refresh
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no noise in a worker's log either
        after = left_out(method, params, state, measured([1e40, *[0.0] * (method.most - 1)]))
        after = left_out(method, params, after, measured([*[0.0] * (method.most - 1), 1e40]))
    moved, well = method.tell(params, after, row(method, 1.0))
    assert (well.nonfinite, well.skipped) == (0, 2)
    assert moved.tobytes() != params.tobytes()


@everywhere[2]
def test_slopes_of_1e21_do_not_stop_adams_coordinates(kind):
    """Their squares are infinite in float32, and a coordinate divided by an infinite second moment stands for ever."""
    method = descent(kind, "adam", "adapter")
    params, state, _ = run(method, Quadratic(WIDE), 3)
    after = left_out(method, params, state, row(method, 1e21))
    moved, well = method.tell(params, after, row(method, 1.0))
    assert (moved != params).mean() > 0.9
    assert finite(moved, *well.buffers)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "averaged"])
@everywhere[2]
def test_slopes_of_1e21_are_taken_where_they_fit(kind, optimizer):
    method = descent(kind, optimizer, "adapter")
    moved, state = method.tell(*method.init(), row(method, 1e21))
    assert (state.step, state.skipped) == (1, 0)
    assert finite(moved, *state.buffers)
    assert np.abs(moved).max() > 1e17


def test_params_may_overflow_alone_and_a_sum_of_steps_too():
    method = descent("two_point", "sgd", "adapter", rate=10.0)
    params, state = method.init()
    left_out(method, params, state, row(method, 1e38))  # the gradient fits, ten times it does not
    params, state = method.tell(params, state, row(method, 3e36))
    assert np.abs(params).max() > 1e37
    for _ in range(60):
        params, state = method.tell(params, state, row(method, 3e36))
        assert np.isfinite(params).all()
    assert state.skipped > 0


def test_a_clip_makes_of_large_losses_a_step_of_its_own_size():
    method = descent("two_point", "adam", "adapter", clip=3.0)
    moved, state = method.tell(*method.init(), row(method, 1e40))
    assert (state.step, state.skipped) == (1, 0)
    assert finite(moved, *state.buffers)


def test_every_entry_of_every_vector_counts():
    well = np.zeros(1000, np.float32)
    assert finite()
    assert finite(well, well)
    for bad in (np.nan, np.inf, -np.inf):
        for place in (0, 500, 999):
            ill = well.copy()
            ill[place] = bad
            assert not finite(well, ill)
            assert not finite(ill, well)
    assert finite(np.full(10, np.finfo(np.float32).max))  # the sum of which is not
