"""SubZero inside the adapter against SubZero on W itself, written out in float64 with LAPACK's QR."""

import math

import numpy as np
import pytest

from tests.worker.zo.methods.frames import F64, frame, targets
from tests.worker.zo.problems import WIDE, Quadratic, run, updates
from worker.types import Layout, Module
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.method import gone_back, measured
from worker.zo.methods.subzero import SubspaceSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS, NU, R = 23, 0.01, 1e-2, 5, 2
MODULES = (Module("a", 6, 5), Module("b", 3, 7), Module("c", 6, 5))


def descent(layout: Layout, refresh: str = "bank", decay: float = 0.0, rank: int = R) -> Descent:
    space = SubspaceSpace(layout, SEED, rank, NU, refresh)
    return Descent(space, Estimator("two_point", EPS), Sgd(), Schedule(RATE), None, decay)


def direction(step: int, places: int) -> list[F64]:
    """sqrt(mn)/r U Z V^T of each module; V's windows are `places`, taken in turn."""
    window = step // NU
    z = noise.normal(Place(SEED, Stream.CORE, step), len(MODULES) * R * R).reshape(-1, R, R).astype(np.float64)
    return [
        math.sqrt(m.outputs * m.inputs)
        / R
        * frame(SEED, Stream.FRAME_LEFT, window, i, m.outputs, R)
        @ z[i]
        @ frame(SEED, Stream.FRAME_RIGHT, window % places, i, m.inputs, R).T
        for i, m in enumerate(MODULES)
    ]


def on_w(layout: Layout, steps: int, places: int, decay: float) -> tuple[list[F64], list[list[float]]]:
    """W of each module after `steps` of SubZero from 0, and the losses it saw."""
    goals, ws, journal = targets(layout), [np.zeros((m.outputs, m.inputs)) for m in MODULES], []
    for step in range(steps):
        zs = direction(step, places)
        losses = [
            sum(float(((w + s * EPS * z - t) ** 2).sum()) / 2 for w, z, t in zip(ws, zs, goals, strict=True))
            for s in (1, -1)
        ]
        journal.append(losses)
        slope = (losses[0] - losses[1]) / (2 * EPS)
        ws = [w * (1 - RATE * decay) - RATE * slope * z for w, z in zip(ws, zs, strict=True)]
    return ws, journal


@pytest.mark.parametrize("refresh, places, decay", [("bank", 2, 0.0), ("bank", 2, 0.5), ("freeze", 1, 0.0)])
@pytest.mark.parametrize("alpha", [5.0, 8.0])
def test_equals_subzero_on_w(refresh, places, decay, alpha):
    """Five windows in an adapter that has room for two: V is taken again in turn, U is always new."""
    layout = Layout(4, alpha, MODULES)
    params, state, journal = run(descent(layout, refresh, decay), Quadratic(layout), 24)
    ws, expected = on_w(layout, 24, places, decay)
    np.testing.assert_allclose(journal, expected, atol=1e-5)
    for found, w in zip(updates(layout, params), ws, strict=True):
        np.testing.assert_allclose(found, w, atol=1e-5)
    assert state.windows == 5


def test_a_direction_lies_in_the_subspace_and_its_entries_have_variance_1():
    layout = Layout(8, 16.0, (Module("x", 60, 40),))
    method = descent(layout, rank=8)
    params, state = method.space.enter(*method.init())
    u = frame(SEED, Stream.FRAME_LEFT, 0, 0, 40, 8)
    v = frame(SEED, Stream.FRAME_RIGHT, 0, 0, 60, 8)
    squares = []
    for query in range(50):
        z = method.space.direction(params, state, query)
        assert not layout.tensor(z, 0).any()
        w = layout.scaling * layout.tensor(z, 1).astype(np.float64) @ layout.tensor(params, 0)
        np.testing.assert_allclose(u @ (u.T @ w @ v) @ v.T, w, atol=1e-5)
        squares.append((w**2).mean())
    assert np.mean(squares) == pytest.approx(1, abs=4 * math.sqrt(2 / (50 * 64)))  # 4 sigma


def test_a_step_that_was_taken_back_opens_no_window():
    layout = Layout(4, 8.0, MODULES)
    method = descent(layout)
    params, state, _ = run(method, Quadratic(layout), 3)
    back = gone_back(state, 9)  # the tenth step is the fourth that counts
    _, after = method.tell(params, back, measured([1.0, 0.5]))
    assert after.windows == 1
    assert after.left[0].tobytes() == state.left[0].tobytes()


def test_finds_what_its_span_holds():
    """With r = 6 on a module of 10 by 12, U's windows together reach every output; V frozen reaches half of the inputs:
    the least loss is that of the target's part outside of V."""
    method = Descent(SubspaceSpace(WIDE, SEED, 6, NU, "freeze"), Estimator("two_point", EPS), Sgd(), Schedule(0.005))
    params, _, _ = run(method, Quadratic(WIDE), 600)
    v = frame(SEED, Stream.FRAME_RIGHT, 0, 0, 12, 6)
    goal = targets(WIDE)[0]
    least = float(((goal - goal @ v @ v.T) ** 2).sum()) / 2
    assert 0.1 < least < 0.4
    assert Quadratic(WIDE)(params) == pytest.approx(least, abs=1e-3)
