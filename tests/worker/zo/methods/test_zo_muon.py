"""ZO-Muon inside the adapter against ZO-Muon on W itself, written out in float64 with LAPACK's QR and SVD."""

import numpy as np
import pytest

from tests.worker.zo.methods.frames import F64, frame, msign, targets
from tests.worker.zo.problems import Quadratic, run, updates
from worker.types import Layout, Module
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.method import gone_back, measured
from worker.zo.methods.zo_muon import Muon, ProjectedSpace
from worker.zo.noise import Place, Stream
from worker.zo.schedules import Schedule

SEED, RATE, EPS, NU, R, Q = 23, 0.02, 1e-2, 5, 2, 3
MODULES = (Module("a", 6, 5), Module("b", 9, 7), Module("c", 6, 5))


def descent(layout: Layout, refresh: str = "bank", decay: float = 0.0) -> Descent:
    space = ProjectedSpace(layout, SEED, R, NU, refresh)
    return Descent(space, Estimator("one_sided", EPS, Q), Muon(layout), Schedule(RATE), None, decay)


def psi(step: int, query: int) -> list[F64]:
    sizes = [R * m.inputs for m in MODULES]
    drawn = noise.normal(Place(SEED, Stream.PROJECTED, step, query), sum(sizes)).astype(np.float64)
    return [x.reshape(R, -1) for x in np.split(drawn, np.cumsum(sizes)[:-1])]


def p(window: int) -> list[F64]:
    return [frame(SEED, Stream.PROJECTION, window, i, m.outputs, R) for i, m in enumerate(MODULES)]


def on_w(layout: Layout, steps: int, places: int, decay: float) -> tuple[list[F64], list[list[float]]]:
    goals, ws, journal = targets(layout), [np.zeros((m.outputs, m.inputs)) for m in MODULES], []

    def loss(moves: list[F64]) -> float:
        return sum(float(((w + d - t) ** 2).sum()) / 2 for w, d, t in zip(ws, moves, goals, strict=True))

    for step in range(steps):
        ps, drawn = p(step // NU % places), [psi(step, query) for query in range(Q)]
        row = [loss([np.zeros_like(w) for w in ws])]
        row += [loss([EPS * a @ b for a, b in zip(ps, each, strict=True)]) for each in drawn]
        journal.append(row)
        slopes = [(x - row[0]) / EPS for x in row[1:]]
        estimates = [sum(c * each[i] for c, each in zip(slopes, drawn, strict=True)) / Q for i in range(len(ws))]
        ws = [w * (1 - RATE * decay) - RATE * a @ msign(g) for w, a, g in zip(ws, ps, estimates, strict=True)]
    return ws, journal


@pytest.mark.parametrize("refresh, places, decay", [("bank", 2, 0.0), ("bank", 2, 0.5), ("freeze", 1, 0.0)])
@pytest.mark.parametrize("alpha", [5.0, 8.0])
def test_equals_zo_muon_on_w(refresh, places, decay, alpha):
    layout = Layout(4, alpha, MODULES)
    params, state, journal = run(descent(layout, refresh, decay), Quadratic(layout), 24)
    ws, expected = on_w(layout, 24, places, decay)
    np.testing.assert_allclose(journal, expected, atol=5e-5)
    for found, w in zip(updates(layout, params), ws, strict=True):
        np.testing.assert_allclose(found, w, atol=2e-4)  # float32's noise in a small singular value is amplified
    assert state.windows == 5


def test_every_move_has_singular_values_of_the_rate():
    layout = Layout(4, 8.0, MODULES)
    method = descent(layout)
    params, state = method.init()
    for scale in (1e-20, 1.0, 1e15):  # whatever the losses' scale
        moved, state = method.tell(params, state, measured([0.0, scale, -2 * scale, 0.5 * scale]))
        for before, after in zip(updates(layout, params), updates(layout, moved), strict=True):
            np.testing.assert_allclose(np.linalg.svd(after - before)[1][:R], RATE, rtol=1e-4)
        params = moved


def test_equal_losses_move_nothing():
    layout = Layout(4, 8.0, MODULES)
    method = descent(layout)
    params, state, _ = run(method, Quadratic(layout), 3)
    moved, after = method.tell(params, state, measured([1.0] * (Q + 1)))
    assert moved.tobytes() == params.tobytes()
    assert (after.step, after.skipped) == (4, 0)


def test_a_step_that_was_taken_back_opens_no_window():
    layout = Layout(4, 8.0, MODULES)
    method = descent(layout)
    params, state, _ = run(method, Quadratic(layout), 3)
    _, after = method.tell(params, gone_back(state, 9), measured([1.0, 0.5, 0.0, 2.0]))
    assert after.windows == 1


def haar(rng: np.random.Generator, outputs: int) -> F64:
    q, r = np.linalg.qr(rng.normal(size=(outputs, R)))
    return q * np.sign(np.diag(r))


def official(rng: np.random.Generator, outputs: int, refresh: bool, old: F64) -> tuple[list[F64], F64]:
    """P of each query and P of the update as the official code has them: `lowdim_zo_perturb_parameters` draws P anew
    for every query of a refresh step and keeps the last, which `lowdim_zo_update` moves along for all."""
    probes = [old] * Q
    if refresh:
        probes = [haar(rng, outputs) for _ in range(Q)]
    return probes, probes[-1]


@pytest.mark.parametrize("refresh", [False, True])
def test_one_p_for_all_queries_where_the_official_code_draws_one_each(refresh):
    """On a linear loss <G, W> the estimate before msign, put back by the P of the update, agrees with G by r / m |G|^2
    in expectation where P is one; at a refresh step of the official code by a q-th of it: q - 1 of q queries are put
    back by a P they were not measured with."""
    rng, outputs, inputs, draws = np.random.default_rng(3), 12, 5, 3000
    g = rng.normal(size=(outputs, inputs))
    agreed = []
    for _ in range(draws):
        probes, last = official(rng, outputs, refresh, haar(rng, outputs))
        each = [rng.normal(size=(R, inputs)) for _ in range(Q)]
        estimate = sum(((a @ b) * g).sum() * b for a, b in zip(probes, each, strict=True)) / Q
        agreed.append(float((g * (last @ estimate)).sum()) / (R / outputs * (g**2).sum()))
    error = 4 * np.std(agreed) / np.sqrt(draws)
    assert np.mean(agreed) == pytest.approx(1 / Q if refresh else 1, abs=error)
    assert error < 0.15


def test_all_probes_of_a_refresh_step_and_its_move_lie_in_one_p():
    layout = Layout(4, 8.0, MODULES)
    method = descent(layout)
    params, state, _ = run(method, Quadratic(layout), NU)  # the next step is a refresh
    probes = [probe.params for probe in method.ask(params, state, ())]
    moved, _ = method.tell(params, state, measured([1.0, 0.5, 2.0, 0.0]))
    for i, projection in enumerate(p(1)):
        base = updates(layout, params)[i]
        for after in (*probes[1:], moved):
            change = updates(layout, after)[i] - base
            np.testing.assert_allclose(projection @ (projection.T @ change), change, atol=1e-6)
            assert np.linalg.norm(change) > 1e-3
