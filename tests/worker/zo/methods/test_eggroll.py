"""EGGROLL with V shared against its update of W in float64: nothing of it is lost in the adapter."""

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, replay, run, updates
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.methods import eggroll
from worker.zo.methods.lozo import WindowSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS, MEMBERS, NU = 23, 5e-3, 1e-2, 5, 4
STEPS = 24


def descent(rank: int, refresh: str = "bank") -> Descent:
    space = WindowSpace(LAYOUT, SEED, rank, NU, refresh)
    return Descent(space, eggroll.weighing(EPS, MEMBERS, rank), Sgd(), Schedule(RATE))


def drawn(rank: int, step: int, windows: int) -> list[list[np.ndarray]]:
    """E_i = U_i V^T / sqrt r of each member and module, as the paper has them; V is that of the window."""
    rights, everywhere = [], sum(module.outputs for module in LAYOUT.modules)
    for i, module in enumerate(LAYOUT.modules):
        place = Place(SEED, Stream.RIGHT, windows, tensor=2 * i)
        rights.append(noise.normal(place, rank * module.inputs).reshape(rank, module.inputs).astype(np.float64))
    members = []
    for query in range(MEMBERS):
        lefts = noise.normal(Place(SEED, Stream.LEFT, step, query), everywhere * rank).reshape(-1, rank)
        cuts = np.cumsum([module.outputs for module in LAYOUT.modules])[:-1]
        members.append(
            [u.astype(np.float64) @ v / np.sqrt(rank) for u, v in zip(np.split(lefts, cuts), rights, strict=True)]
        )
    return members


@pytest.mark.parametrize("rank, refresh", [(1, "bank"), (2, "bank"), (4, "freeze")])
def test_equals_its_update_of_w(rank, refresh):
    f = Quadratic(LAYOUT)
    method = descent(rank, refresh)
    params, state, journal = run(method, f, STEPS)
    w = [np.zeros((module.outputs, module.inputs)) for module in LAYOUT.modules]
    slots = LAYOUT.rank // rank
    for step, told in enumerate(journal):
        windows = 0 if refresh == "freeze" else (step // NU) % slots  # a bank's are taken again in turn
        members = drawn(rank, step, windows)
        scores = (np.array(told) - np.mean(told)) / np.std(told)
        for i in range(len(w)):
            w[i] = w[i] - RATE * np.sqrt(MEMBERS) * np.mean([s * e[i] for s, e in zip(scores, members, strict=True)], 0)
    assert state.skipped == 0
    for mine, formula in zip(updates(LAYOUT, params), w, strict=True):
        np.testing.assert_allclose(mine, formula, atol=5e-6)
    assert max(np.abs(x).max() for x in w) > 0.02


def test_its_members_are_what_is_scored():
    for rank in (1, 2):
        method = descent(rank)
        params, state = method.init()
        for probe, member in zip(method.ask(params, state, ()), drawn(rank, 0, 0), strict=True):
            for mine, formula in zip(updates(LAYOUT, probe.params), member, strict=True):
                np.testing.assert_allclose(mine, EPS * formula, atol=1e-6)


def test_a_positive_affine_map_of_the_losses_changes_rounding_only():
    params, _, journal = run(descent(2), Quadratic(LAYOUT), STEPS)
    doubled, _ = replay(descent(2), [[4 * x for x in row] for row in journal])
    assert doubled.tobytes() == params.tobytes()
    mapped, _ = replay(descent(2), [[0.3 * x + 5 for x in row] for row in journal])
    np.testing.assert_allclose(mapped, params, atol=1e-6)
