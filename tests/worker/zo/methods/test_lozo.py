"""LOZO inside the adapter against LOZO on W itself, written out in float64."""

import numpy as np
import pytest

from tests.worker.zo.problems import WIDE, Quadratic, run, updates
from worker.types import Layout
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.method import measured
from worker.zo.methods.lozo import WindowSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Momentum, Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS, NU, R = 23, 0.01, 1e-2, 5, 2
MODULE = WIDE.modules[0]


def descent(refresh="bank", optimizer=None, layout=WIDE, decay=0.0) -> Descent:
    space = WindowSpace(layout, SEED, R, NU, refresh)
    return Descent(space, Estimator("two_point", EPS), optimizer or Sgd(), Schedule(RATE), None, decay)


def u(step: int) -> np.ndarray:
    drawn = noise.normal(Place(SEED, Stream.LEFT, step), MODULE.outputs * R)
    return drawn.reshape(MODULE.outputs, R).astype(np.float64)


def v(window: int) -> np.ndarray:
    drawn = noise.normal(Place(SEED, Stream.RIGHT, window, tensor=0), MODULE.inputs * R)
    return drawn.reshape(R, MODULE.inputs).T.astype(np.float64)


def on_w(steps: int, slots: int, beta: float = 0.0, decay: float = 0.0) -> tuple[np.ndarray, list[list[float]]]:
    """W after `steps` of LOZO(-M) from W = 0, X <- X - lr (N V^T + wd X), and the losses it saw.
    Of V, redrawn every NU steps, `slots` are taken in turn."""
    rng = np.random.default_rng(5)
    target = np.outer(rng.normal(size=MODULE.outputs), rng.normal(size=MODULE.inputs))
    target /= np.linalg.norm(target)
    w, n, journal = np.zeros((MODULE.outputs, MODULE.inputs)), np.zeros((MODULE.outputs, R)), []
    for step in range(steps):
        window = step // NU % slots
        if step and step % NU == 0 and slots > 1:
            n = n @ v((step - 1) // NU % slots).T @ v(window) / MODULE.inputs
        losses = [float(((w + s * EPS * u(step) @ v(window).T - target) ** 2).sum()) / 2 for s in (1, -1)]
        journal.append(losses)
        n = beta * n + (1 - beta) * (losses[0] - losses[1]) / (2 * EPS) * u(step)
        w = w * (1 - RATE * decay) - RATE * n @ v(window).T
    return w, journal


@pytest.mark.parametrize(
    "refresh, steps, slots", [("bank", 18, 4), ("bank", 33, 4), ("freeze", 30, 1), ("recompress", 20, 99)]
)
@pytest.mark.parametrize("alpha", [8.0, 16.0, 5.0])
def test_equals_lozo_on_w(refresh, steps, slots, alpha):
    """Recompress is exact up to four windows here: three folds of rank 2 fit the 6 that are kept."""
    layout = Layout(WIDE.rank, alpha, WIDE.modules)
    params, state, journal = run(descent(refresh, layout=layout), Quadratic(layout), steps)
    w, expected = on_w(steps, slots)
    np.testing.assert_allclose(journal, expected, atol=1e-5)
    np.testing.assert_allclose(updates(layout, params)[0], w, atol=1e-5)
    assert state.windows == (1 if refresh == "freeze" else (steps - 1) // NU + 1)
    assert all(lost < 1e-6 for lost in state.truncation)


@pytest.mark.parametrize("refresh, steps, slots", [("bank", 33, 4), ("recompress", 18, 99), ("freeze", 18, 1)])
def test_lozo_m_carries_its_momentum_across_v(refresh, steps, slots):
    method = descent(refresh, optimizer=Momentum(0.8, dampening=0.8))
    params, _, journal = run(method, Quadratic(WIDE), steps)
    w, expected = on_w(steps, slots, beta=0.8)
    np.testing.assert_allclose(journal, expected, atol=1e-5)
    np.testing.assert_allclose(updates(WIDE, params)[0], w, atol=1e-5)


def test_decay_shrinks_w_and_leaves_v():
    params, _, _ = run(descent(decay=0.5), Quadratic(WIDE), 18)
    np.testing.assert_allclose(updates(WIDE, params)[0], on_w(18, 4, decay=0.5)[0], atol=1e-5)
    assert (WIDE.tensor(params, 0)[:R] == v(0).T).all()


def test_recompress_keeps_the_best_and_records_what_it_lost():
    method = descent("recompress")
    params, state, _ = run(method, Quadratic(WIDE), 5 * NU)
    before = updates(WIDE, params)[0]
    entered, after_state = method.space.enter(params, state)
    assert state.truncation[:3] == pytest.approx([0, 0, 0], abs=1e-6)  # rank 2, 4 and 6 fit
    s = np.linalg.svd(before)[1]
    lost = np.linalg.norm(updates(WIDE, entered)[0] - before) / np.linalg.norm(before)
    assert lost == pytest.approx(np.sqrt((s[6:] ** 2).sum() / (s**2).sum()), rel=1e-4)
    assert after_state.truncation[-1] == pytest.approx(lost, rel=1e-4)
    assert lost > 1e-3


def test_a_step_moves_only_its_window_of_b():
    method = descent()
    params, state, _ = run(method, Quadratic(WIDE), NU + 1)
    moved, _ = method.tell(params, state, measured([1.0, 0.0]))
    difference = moved - params
    assert not WIDE.tensor(difference, 0).any()
    assert np.flatnonzero(WIDE.tensor(difference, 1).any(0)).tolist() == [2, 3]
    assert np.linalg.matrix_rank(updates(WIDE, moved)[0] - updates(WIDE, params)[0], tol=1e-6) == R


def test_a_refresh_waits_for_finite_losses():
    method = descent()
    params, state, _ = run(method, Quadratic(WIDE), NU)
    same, skipped = method.tell(params, state, measured([np.nan, 1.0]))
    assert same is params
    assert (skipped.windows, skipped.step) == (1, NU + 1)
    _, later = method.tell(same, skipped, measured([1.0, 0.5]))
    assert later.windows == 2


def test_rms_divides_probe_and_move_by_the_root_of_the_rank():
    layout = Layout(8, 8.0, WIDE.modules)
    plain, scaled = (
        Descent(WindowSpace(layout, SEED, 8, NU, "freeze", scale), Estimator("two_point", EPS), Sgd(), Schedule(RATE))
        for scale in ("none", "rms")
    )
    z, small = (m.space.direction(*m.space.enter(*m.init()), 0) for m in (plain, scaled))
    np.testing.assert_allclose(small * np.sqrt(8), z, rtol=1e-6)
    params, state = scaled.space.enter(*scaled.init())
    squares = [
        float((updates(layout, params + scaled.space.direction(params, state, query))[0] ** 2).mean())
        for query in range(200)
    ]
    assert np.mean(squares) == pytest.approx((layout.tensor(params, 0) ** 2).mean(), rel=0.05)  # U's own variance is 1
    told, _ = scaled.tell(*scaled.init(), measured([EPS, -EPS]))  # a slope of 1
    np.testing.assert_allclose(told - params, -RATE * small, atol=1e-7)


def official(step: int, v: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(U measured, U moved along, V) of a step of the official code, for one parameter: `lowrank_zo_perturb_parameters`
    draws V and then U from the step's seed where V is due, else U; `lowrank_zo_update` draws U first, always."""
    probing, moving = np.random.default_rng(step), np.random.default_rng(step)
    if step % NU == 0:
        v = probing.normal(size=(MODULE.inputs, R))
    return probing.normal(size=(MODULE.outputs, R)), moving.normal(size=(MODULE.outputs, R)), v


def test_we_move_along_what_was_measured_where_the_official_code_does_not():
    """Its U of a refresh step is made of the numbers that were V's; ours is the U that was probed, at every step."""
    method = descent()
    params, state = method.init()
    v_official = None
    for step in range(2 * NU + 1):
        probed, moved_along, v_official = official(step, v_official)
        if step % NU == 0:
            assert moved_along.ravel().tolist() == v_official.ravel()[: moved_along.size].tolist()
            assert abs(np.corrcoef(probed.ravel(), moved_along.ravel())[0, 1]) < 0.8
        else:
            assert (probed == moved_along).all()
        up, down = (probe.params for probe in method.ask(params, state, ()))
        entered, _ = method.space.enter(params, state)
        params, state = method.tell(params, state, measured([1.0, 0.0]))
        measured_along = (up - down).astype(np.float64) / (2 * EPS)
        np.testing.assert_allclose(params - entered, -RATE / (2 * EPS) * measured_along, atol=2e-4)


def test_a_sum_of_fresh_u_and_v_has_a_flat_spectrum():
    """Decision 0019: 400 steps of rank 8, each with its own V, make an update whose best rank 8 holds little of it;
    with V fixed rank 8 holds all."""
    side, rank, steps = 96, 8, 400

    def factor(stream: Stream, step: int) -> np.ndarray:
        return noise.normal(Place(SEED, stream, step), side * rank).reshape(side, rank).astype(np.float64)

    slopes = np.random.default_rng(1).normal(size=steps)
    for fixed, lost in ((False, 0.84), (True, 0.0)):
        w = sum(c * factor(Stream.LEFT, t) @ factor(Stream.RIGHT, 0 if fixed else t).T for t, c in enumerate(slopes))
        s = np.linalg.svd(w)[1]
        assert np.sqrt((s[rank:] ** 2).sum() / (s**2).sum()) == pytest.approx(lost, abs=0.03)
