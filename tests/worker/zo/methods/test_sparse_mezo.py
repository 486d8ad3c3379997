"""Sparse-MeZO against its formula in float64; its mask follows from the params at the refresh, and is replayed."""

import numpy as np
import pytest

from tests.worker.zo.methods.deep import LAYOUT, SEED, made
from tests.worker.zo.problems import Quadratic, replay, run
from worker.zo import noise
from worker.zo.method import gone_back, measured
from worker.zo.noise import Place, Stream

RATE, EPS = 0.02, 1e-2


def small(theta, density):
    """1 where an entry is among the smallest of its tensor, equals of the largest of them too; float64."""
    found = np.zeros(LAYOUT.size)
    for begin, end in zip(LAYOUT.offsets[:-1], LAYOUT.offsets[1:], strict=True):
        sizes = np.abs(theta[begin:end])
        found[begin:end] = sizes <= sorted(sizes)[round(density * (end - begin)) - 1]
    return found


def probed(method, params, state):
    """1 where the first probe differs or its noise is 0 there."""
    z = noise.normal(Place(SEED, Stream.PROBE, state.step), LAYOUT.size)
    return (method.ask(params, state, ())[0].params != params) | (z == 0)


@pytest.mark.parametrize("every", [1, 5])
def test_equals_its_formula(every):
    f = Quadratic(LAYOUT)
    method = made("sparse_mezo", RATE, density=0.5, mask_every=every)
    params, _, journal = run(method, f, 24)
    theta = method.init()[0].astype(np.float64)
    for step, told in enumerate(journal):
        if step % every == 0:
            # As float32 has it: an entry that was not moved for long is level with nothing else.
            m = small(theta.astype(np.float32), 0.5)
        z = m * noise.normal(Place(SEED, Stream.PROBE, step), LAYOUT.size)
        np.testing.assert_allclose(told, [f(theta + EPS * z), f(theta - EPS * z)], atol=1e-6)
        theta = theta - RATE * (told[0] - told[1]) / (2 * EPS) * z
    np.testing.assert_allclose(params, theta, atol=1e-6)


def test_the_mask_is_of_the_params_at_the_refresh_and_stays_until_the_next():
    method = made("sparse_mezo", density=0.25, mask_every=6)
    params, state = method.init()
    for step in range(18):
        if step % 6 == 0:
            wanted = small(params, 0.25)
        z = noise.normal(Place(SEED, Stream.PROBE, step), LAYOUT.size)
        assert (probed(method, params, state) == ((wanted == 1) | (z == 0))).all()
        before = params
        params, state = method.tell(params, state, measured([1.0, 0.5]))
        assert params[wanted == 0].tobytes() == before[wanted == 0].tobytes()
    assert state.mask[0].nbytes == -(-LAYOUT.size // 8)


def test_at_the_start_all_of_b_is_in_and_a_share_of_a():
    method = made("sparse_mezo", density=0.25, mask_every=6)
    params, state = method.init()
    _, entered = method.space.enter(params, state)
    mask = np.unpackbits(entered.mask[0], count=LAYOUT.size).astype(np.float32)
    for _, a, b in LAYOUT.pairs(mask):
        assert a.mean() == 0.25
        assert b.mean() == 1
    for _ in range(6):
        params, state = method.tell(params, state, measured([1.0, 0.5]))
    _, entered = method.space.enter(params, state)
    mask = np.unpackbits(entered.mask[0], count=LAYOUT.size).astype(np.float32)
    assert all(0.25 <= b.mean() < 1 for _, _, b in LAYOUT.pairs(mask))


def test_a_threshold_kept_instead_of_the_mask_would_shut_b_out():
    """Read from the present params, the mask |theta| <= h with B's h = 0 of the start leaves B its zeros alone."""
    method = made("sparse_mezo", density=0.25, mask_every=100)
    params, state = method.init()
    for _ in range(3):
        params, state = method.tell(params, state, measured([1.0, 0.5]))
    reads = np.abs(params) <= 0  # B's entries that such a mask keeps
    assert np.mean(np.concatenate([b.ravel() for _, _, b in LAYOUT.pairs(reads)])) < 0.2
    for i in range(len(LAYOUT.modules)):
        assert LAYOUT.tensor(probed(method, params, state), 2 * i + 1).all()


def test_a_refresh_whose_losses_are_not_finite_is_due_again_at_the_next_step():
    method = made("sparse_mezo", density=0.25, mask_every=2)
    params, state = method.init()
    for _ in range(2):
        params, state = method.tell(params, state, measured([1.0, 0.5]))
    lost = method.tell(params, state, measured([np.nan, 0.5]))
    assert lost[1].masks == state.masks == 1
    params, after = method.tell(*lost, measured([1.0, 0.5]))
    assert after.masks == 2


def test_it_goes_back_with_its_mask():
    """A run that went back to an earlier step has the mask of then, and its next refresh as many steps on."""
    method = made("sparse_mezo", density=0.25, mask_every=4)
    params, state, _ = run(method, Quadratic(LAYOUT), 6)
    back = gone_back(state, 31)
    assert (probed(method, params, back) | ~np.unpackbits(state.mask[0], count=LAYOUT.size).astype(bool)).all()
    for step in range(31, 34):
        params, back = method.tell(params, back, measured([1.0, 0.5]))
        assert back.masks == (2 if step < 33 else 3), step


def test_reaches_what_is_looked_for_and_replays_to_the_bit():
    f = Quadratic(LAYOUT)
    method = made("sparse_mezo", 0.01, density=0.5, mask_every=20, steps=600)
    params, state, journal = run(method, f, 600)
    assert f(params) < 0.5 < f(method.init()[0])
    again, its_state = replay(method, journal)
    assert (again.tobytes(), its_state.mask[0].tobytes()) == (params.tobytes(), state.mask[0].tobytes())
