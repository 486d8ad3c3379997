"""EGGROLL with members of their own against its update of W in float64, cut back by LAPACK's singular values."""

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, WHOLE, WIDE, Quadratic, replay, run, updates
from worker.types import Layout, Module
from worker.zo import noise
from worker.zo.method import measured
from worker.zo.methods import eggroll
from worker.zo.methods.eggroll_members import Members
from worker.zo.noise import Place, Stream
from worker.zo.schedules import Schedule

SEED, RATE, EPS, N = 29, 5e-3, 1e-2, 5
STEPS = 24


def own(layout: Layout, rank: int, rate: float = RATE, decay: float = 0.0) -> Members:
    return Members(layout, SEED, rank, eggroll.weighing(EPS, N, rank), Schedule(rate), weight_decay=decay)


def drawn(layout: Layout, rank: int, step: int) -> list[list[np.ndarray]]:
    """E_i = U_i V_i^T / sqrt r of each member and module."""
    members = []
    for query in range(N):
        halves = []
        for stream, sides in (
            (Stream.LEFT, [m.outputs for m in layout.modules]),
            (Stream.MEMBER_RIGHT, [m.inputs for m in layout.modules]),
        ):
            flat = noise.normal(Place(SEED, stream, step, query), sum(sides) * rank).astype(np.float64)
            halves.append(np.split(flat, np.cumsum(sides)[:-1] * rank))
        members.append(
            [u.reshape(-1, rank) @ v.reshape(rank, -1) / np.sqrt(rank) for u, v in zip(*halves, strict=True)]
        )
    return members


def on_w(layout: Layout, rank: int, journal: list[list[float]], decay: float) -> tuple[list[np.ndarray], list, list]:
    """W of each module, and what each cut lost over the sum's norm and over the move's."""
    w = [np.zeros((m.outputs, m.inputs)) for m in layout.modules]
    of_sum, of_move = [], []
    for step, told in enumerate(journal):
        scores = (np.array(told) - np.mean(told)) / np.std(told)
        lost = whole = moved = 0.0
        for i, each in enumerate(zip(*drawn(layout, rank, step), strict=True)):
            move = -RATE * np.sqrt(N) * np.mean([s * e for s, e in zip(scores, each, strict=True)], 0)
            u, s, vt = np.linalg.svd((1 - RATE * decay) * w[i] + move, full_matrices=False)
            keep = layout.rank - rank
            w[i] = (u[:, :keep] * s[:keep]) @ vt[:keep]
            lost, whole, moved = lost + (s[keep:] ** 2).sum(), whole + (s**2).sum(), moved + (move**2).sum()
        of_sum.append(np.sqrt(lost / whole))
        of_move.append(np.sqrt(lost / moved))
    return w, of_sum, of_move


@pytest.mark.parametrize("layout, rank", [(LAYOUT, 1), (LAYOUT, 2), (WIDE, 1), (WHOLE, 2)])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_equals_its_update_of_w_cut_back_and_says_what_that_lost(layout, rank, decay):
    method = own(layout, rank, decay=decay)
    params, state, journal = run(method, Quadratic(layout), STEPS)
    w, of_sum, of_move = on_w(layout, rank, journal, decay)
    assert state.skipped == 0
    for mine, formula in zip(updates(layout, params), w, strict=True):
        np.testing.assert_allclose(mine, formula, atol=5e-6)
    assert max(np.abs(x).max() for x in w) > 0.01
    np.testing.assert_allclose(state.truncation, of_sum, atol=1e-5)
    np.testing.assert_allclose(state.missed, of_move, atol=1e-4)
    assert max(of_sum) > 0.01 or layout is WHOLE
    if layout is WHOLE:  # what is kept, rank 6 of its 6 by 10, holds every update: nothing is ever lost
        assert max(state.missed) < 1e-5


def test_its_members_are_what_is_scored_and_none_stays():
    for rank in (1, 2):
        method = own(LAYOUT, rank)
        params, state, _ = run(method, Quadratic(LAYOUT), 3)
        here = updates(LAYOUT, params)
        for probe, member in zip(method.ask(params, state, ()), drawn(LAYOUT, rank, 3), strict=True):
            for mine, before, formula in zip(updates(LAYOUT, probe.params), here, member, strict=True):
                np.testing.assert_allclose(mine - before, EPS * formula, atol=1e-6)
        for _, a, b in LAYOUT.pairs(params):
            assert not a[LAYOUT.rank - rank :].any()
            assert not b[:, LAYOUT.rank - rank :].any()


def test_members_share_no_v():
    method = own(WIDE, 1)
    probes = method.ask(*method.init(), ())
    assert np.linalg.matrix_rank(sum(updates(WIDE, probe.params)[0] for probe in probes), tol=1e-6) == N


def test_equal_losses_move_nothing_and_record_nothing():
    method = own(WIDE, 1)
    params, state, _ = run(method, Quadratic(WIDE), 3)
    same, after = method.tell(params, state, measured([0.3] * N))
    assert same.tobytes() == params.tobytes()
    assert (after.step, after.skipped, after.truncation) == (4, 0, state.truncation)


def test_a_loss_times_a_power_of_two_leaves_every_bit():
    params, _, journal = run(own(WIDE, 1), Quadratic(WIDE), STEPS)
    again, _ = replay(own(WIDE, 1), [[4 * x for x in row] for row in journal])
    assert again.tobytes() == params.tobytes()


def test_a_move_too_large_for_float32_is_left_out():
    params, state = own(WIDE, 1).init()
    same, after = own(WIDE, 1, rate=1e39).tell(params, state, measured(np.arange(N)))
    assert same.tobytes() == params.tobytes()
    assert (after.step, after.skipped) == (1, 1)


def test_most_of_a_move_is_missed_once_something_is_kept():
    """Decision 0029: of a wide module an adapter's rank takes little of a move that shares no direction with it."""
    layout = Layout(8, 16.0, (Module("wide", 96, 96),))
    _, state, _ = run(own(layout, 1), Quadratic(layout), 12)
    assert state.missed[0] == pytest.approx(0, abs=1e-5)  # 5 members fit the 7 kept
    assert min(state.missed[4:]) > 0.6
