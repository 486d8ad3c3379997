"""TeZO inside the adapter against TeZO on W itself, written out in float64."""

import numpy as np
import pytest

from db.contract import methods
from tests.worker.zo.methods.frames import F64, targets
from tests.worker.zo.problems import LAYOUT, Quadratic, arrays, run, updates
from tests.worker.zo.test_conformance import build
from worker.types import Layout
from worker.zo import noise
from worker.zo.estimators import Estimator
from worker.zo.methods.tezo import FactorSpace, Spanned, Temporal
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Adam, Momentum, Optimizer, Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS, BETA, BETA2, FLOOR = 23, 5e-3, 1e-2, 0.8, 0.95, 1e-8


def tezo(layout: Layout, optimizer: Optimizer, queries: int = 1, decay: float = 0.0) -> Temporal:
    space = FactorSpace(layout, SEED)
    estimator = Estimator("two_point", EPS, queries)
    return Temporal(space, estimator, Spanned(space, optimizer), Schedule(RATE), None, decay)


def drawn(stream: Stream, step: int, probe: int, tensor: int, *shape: int) -> F64:
    count = int(np.prod(shape))
    return noise.normal(Place(SEED, stream, step, probe, tensor), count).reshape(shape).astype(np.float64)


def on_w(kind: str, steps: int, queries: int, decay: float) -> tuple[list[F64], list[list[float]]]:
    """W of each module after `steps` of TeZO from 0: sums of tau_s u_s v_s^T, and moments of c tau."""
    r, modules, goals = LAYOUT.rank, LAYOUT.modules, targets(LAYOUT)
    us = [drawn(Stream.FIXED_LEFT, 0, 0, 2 * i + 1, m.outputs, r) for i, m in enumerate(modules)]
    vs = [drawn(Stream.FIXED_RIGHT, 0, 0, 2 * i, r, m.inputs) for i, m in enumerate(modules)]
    ws, journal = [np.zeros((m.outputs, m.inputs)) for m in modules], []
    first, second = np.zeros((len(modules), r)), np.zeros((len(modules), r))
    for step in range(steps):
        estimate, row = np.zeros((len(modules), r)), []
        for query in range(queries):
            tau = drawn(Stream.TEMPORAL, step, query, 0, len(modules), r)
            losses = [
                sum(
                    float(((w + s * EPS * sum(t * np.outer(u[:, k], v[k]) for k, t in enumerate(ts)) - g) ** 2).sum())
                    / 2
                    for w, u, v, ts, g in zip(ws, us, vs, tau, goals, strict=True)
                )
                for s in (1, -1)
            ]
            row += losses
            estimate += (losses[0] - losses[1]) / (2 * EPS) * tau / queries
        journal.append(row)
        move = estimate
        if kind != "sgd":
            first = BETA * first + (1 - BETA) * estimate
            second = BETA2 * second + (1 - BETA2) * estimate**2
            move = first
        if kind == "adam":
            hat = first / (1 - BETA ** (step + 1)), second / (1 - BETA2 ** (step + 1))
            move = hat[0] / (np.sqrt(hat[1]) + FLOOR)
        ws = [
            w * (1 - RATE * decay) - RATE * (u * weights) @ v for w, u, v, weights in zip(ws, us, vs, move, strict=True)
        ]
    return ws, journal


RULES = {"sgd": Sgd(), "momentum": Momentum(BETA, dampening=BETA), "adam": Adam(BETA, BETA2)}


@pytest.mark.parametrize("kind, queries, decay", [("sgd", 1, 0.5), ("momentum", 2, 0.0), ("adam", 2, 0.0)])
def test_equals_tezo_on_w(kind, queries, decay):
    params, _, journal = run(tezo(LAYOUT, RULES[kind], queries, decay), Quadratic(LAYOUT), 25)
    ws, expected = on_w(kind, 25, queries, decay)
    np.testing.assert_allclose(journal, expected, atol=2e-5)
    for found, w in zip(updates(LAYOUT, params), ws, strict=True):
        np.testing.assert_allclose(found, w, atol=2e-5)
        assert np.abs(w).max() > 1e-2


@pytest.mark.parametrize("kind, numbers", [("sgd", 0), ("momentum", 1), ("adam", 2)])
def test_moments_are_r_numbers_a_module(kind, numbers):
    _, state, _ = run(tezo(LAYOUT, RULES[kind]), Quadratic(LAYOUT), 3)
    size = sum(x.nbytes for x in arrays(state))
    assert size == numbers * 4 * LAYOUT.rank * len(LAYOUT.modules)
    if kind == "adam":
        _, whole, _ = run(build("mezo adam, cosine", LAYOUT), Quadratic(LAYOUT), 3)
        assert sum(x.nbytes for x in arrays(whole)) == 2 * 4 * LAYOUT.size


def test_v_stays_and_each_column_of_b_stays_along_its_u():
    params, _, _ = run(tezo(LAYOUT, Adam(BETA, BETA2)), Quadratic(LAYOUT), 40)
    start, _ = tezo(LAYOUT, Sgd()).init()
    for i, m in enumerate(LAYOUT.modules):
        assert (LAYOUT.tensor(params, 2 * i) == LAYOUT.tensor(start, 2 * i)).all()
        b = LAYOUT.tensor(params, 2 * i + 1).astype(np.float64)
        u = drawn(Stream.FIXED_LEFT, 0, 0, 2 * i + 1, m.outputs, LAYOUT.rank)
        cosine = np.abs((b * u).sum(0)) / np.linalg.norm(b, axis=0) / np.linalg.norm(u, axis=0)
        np.testing.assert_allclose(cosine, 1, atol=1e-5)


def test_finds_the_best_weights():
    """On a quadratic the best weights are those of least squares over the u_s v_s^T."""
    method = tezo(LAYOUT, Sgd(), queries=4)
    params, _, _ = run(method, Quadratic(LAYOUT), 1200)
    least = 0.0
    for i, (m, goal) in enumerate(zip(LAYOUT.modules, targets(LAYOUT), strict=True)):
        u = drawn(Stream.FIXED_LEFT, 0, 0, 2 * i + 1, m.outputs, LAYOUT.rank)
        v = drawn(Stream.FIXED_RIGHT, 0, 0, 2 * i, LAYOUT.rank, m.inputs)
        basis = np.stack([np.outer(u[:, s], v[s]).ravel() for s in range(LAYOUT.rank)], 1)
        weights = np.linalg.lstsq(basis, goal.ravel(), rcond=None)[0]
        least += float(((basis @ weights - goal.ravel()) ** 2).sum()) / 2
    assert least < 0.95  # of 1 at the start
    assert Quadratic(LAYOUT)(params) == pytest.approx(least, abs=1e-3)


def test_a_window_is_no_setting_of_it():
    assert not {"nu", "window_rank", "refresh"} & set(methods.ARMS["tezo"].model_fields)
