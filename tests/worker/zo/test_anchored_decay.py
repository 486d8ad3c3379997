"""Decoupled decay of an adapter is anchored decay of the weights it stands for: towards the base (arXiv 2605.30148)."""

import numpy as np
import pytest

from tests.worker.linear import BASE, spec
from tests.worker.zo.problems import LAYOUT, Quadratic, run, updates
from worker.runs import parts, recipes
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Standardised
from worker.zo.method import measured
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule

SEED, RATE, DECAY, STEPS, QUERIES = 17, 0.05, 2.0, 20, 4
FACTOR = 1 - RATE * DECAY


def test_a_strategy_on_b_alone_is_the_papers_on_whole_weights():
    """W <- W0 + (1 - a l)(W + (a / N) sum_i F_i E_i - W0), in float64 on W itself, with E_i = scaling * z_i A. The
    paper decays the step too, and ours does so at the next: at a constant rate its W - W0 is ours times 1 - a l."""
    shape = parts.factored(0.0, LAYOUT)
    weighing = Standardised("mean", 1e-2, QUERIES)
    method = Descent(AdapterSpace(LAYOUT, SEED), weighing, Sgd(), Schedule(RATE), None, DECAY, shape)
    params, _, journal = run(method, Quadratic(LAYOUT), STEPS)
    started, _ = method.init()
    rng = np.random.default_rng(3)
    anchor = [rng.standard_normal((m.outputs, m.inputs)) for m in LAYOUT.modules]
    weights = [w.copy() for w in anchor]
    for step, losses in enumerate(journal):
        told = np.array(losses)
        fitness = -(told - told.mean()) / told.std()
        moves = [np.zeros_like(w) for w in anchor]
        for query, f in enumerate(fitness):
            z = noise.normal(Place(SEED, Stream.PROBE, step, query), LAYOUT.size)
            for i in range(len(LAYOUT.modules)):
                b, a = LAYOUT.tensor(z, 2 * i + 1).astype(float), LAYOUT.tensor(started, 2 * i).astype(float)
                moves[i] += f * LAYOUT.scaling * b @ a / QUERIES
        weights = [
            w0 + (1 - RATE * DECAY) * (w + RATE * move - w0) for w, w0, move in zip(weights, anchor, moves, strict=True)
        ]
    assert all(np.abs(w - w0).max() > 0.01 for w, w0 in zip(weights, anchor, strict=True))
    for w, w0, ours in zip(weights, anchor, updates(LAYOUT, params), strict=True):
        np.testing.assert_allclose(FACTOR * ours, w - w0, atol=1e-6)


WINDOW = {"learning_rate": 0.05, "window_rank": 2, "nu": 100}
SPACES = {
    "A and B": ({"name": "mezo", "learning_rate": 0.05}, 2),
    "B alone": ({"name": "mezo", "learning_rate": 0.05, "a_factor": 0.0}, 1),
    "strategy": ({"name": "es", "learning_rate": 0.05, "a_factor": 0.0}, 1),
    "signs": ({"name": "fzoo", "learning_rate": 0.05, "a_factor": 0.0}, 1),
    "window": ({"name": "lozo", **WINDOW}, 1),
    "subspace": ({"name": "subzero", **WINDOW}, 1),
    "factors": ({"name": "tezo", "learning_rate": 0.05}, 1),
}


@pytest.mark.parametrize("name", SPACES)
def test_where_losses_say_nothing_every_space_goes_back_to_the_base(name):
    """A step of equal losses takes the update by 1 - rate * decay towards the base: once where one half of the adapter
    moves, twice where both do."""
    given, halves = SPACES[name]
    job = spec(method={"weight_decay": 1.0, **given}, adapter={"rank": 3, "alpha": 6.0, "targets": ("q_proj",)})
    layout = recipes.layout(job, BASE)
    method = recipes.method(job, layout)
    params, state, journal = run(method, Quadratic(layout), 3)
    (before,) = updates(layout, params)
    assert np.abs(before).max() > 1e-3
    moved, _ = method.tell(params, state, measured([0.5] * len(journal[0]), method.numbers))
    (after,) = updates(layout, moved)
    rate = parts.schedule(job.method, job)(state.step)
    np.testing.assert_allclose(after, (1 - rate) ** halves * before, atol=1e-6)
