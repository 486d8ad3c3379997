"""Meta-trained networks: what they learn on a landscape whose answer is known, and that a seed gives the same ones."""

import numpy as np
import torch

from db.contract import methods
from db.contract.spec import AdapterSpec, JobSpec
from tests.profiled import sha256
from tests.worker.profiling.toys import LAYOUT, Bowls
from worker.profiling.meta import Plan, started, trained
from worker.runs import profiles, recipes
from worker.zo.learned import Networks, normalised
from worker.zo.method import measured

SIZES = np.diff(LAYOUT.offsets).astype(np.float64)


def landscape():
    """All is to be had in the first B; the second is steep and at its place already, and the As hardly matter."""
    targets = np.zeros(LAYOUT.size)
    LAYOUT.tensor(targets, 1)[:] = np.random.default_rng(1).normal(size=LAYOUT.shapes[1])
    return Bowls(LAYOUT, (0.01, 1.0, 0.01, 30.0), targets, spread=0.01)


PLAN = Plan(steps=400, restart=40, batch=4, rate=1e-3, eps=1e-3, meta_rate=0.02, hidden=4, seed=6)


def run(profile, steps=60, rate=2e-3):
    method = {"name": "mezo"} if profile is None else {"name": "zo_finetuner", "profile": sha256(profile)}
    spec = JobSpec(
        model="m", objective="lm", training_file="f", steps=steps, batch_size=1, eval_every=1, seed=4,
        adapter=AdapterSpec(rank=LAYOUT.rank, alpha=LAYOUT.alpha, targets=("q",)),
        method=methods.settings(**method, eps=1e-3, learning_rate=rate),
    )  # fmt: skip
    made = recipes.method(spec, LAYOUT, profile=profile)
    f = landscape()
    params, state = made.init()
    for _ in range(steps):
        heard = measured([f.loss(probe.params, range(f.rows)) for probe in made.ask(params, state, ())])
        params, state = made.tell(params, state, heard)
    return f.loss(params, range(f.rows))


def test_networks_as_they_begin_say_one_nearly():
    networks = Networks(*started(LAYOUT, PLAN))
    read = np.random.default_rng(2).normal(size=(len(SIZES), profiles.INPUTS))
    np.testing.assert_allclose(networks(read), 1, atol=0.1)


def test_what_is_learned_moves_what_is_to_be_moved():
    found = trained(landscape(), LAYOUT, PLAN)
    networks = Networks(**found.tensors)
    read = np.tile([0.0, 0.05, 6.0, 6.0, 1.0], (len(SIZES), 1))
    sigma = normalised(networks(read), SIZES)
    print(f"\nsigma {sigma}")
    assert sigma[1] > 1.2
    assert sigma[3] < 0.5
    data = profiles.written("mlp", "b", "m", LAYOUT, found.tensors)
    plain, learned = run(None), run(data)
    print(f"loss after 60 steps: {plain:.3f} even, {learned:.3f} learned")
    assert learned < plain


def test_a_seed_gives_the_same_networks_whatever_torchs_own():
    plan = Plan(steps=12, restart=5, batch=2, hidden=3, seed=1)
    torch.manual_seed(1)
    one = trained(landscape(), LAYOUT, plan)
    torch.manual_seed(2)
    two = trained(landscape(), LAYOUT, plan)
    assert {name: x.tobytes() for name, x in one.tensors.items()} == {n: x.tobytes() for n, x in two.tensors.items()}
    assert one.losses == two.losses
    other = trained(landscape(), LAYOUT, Plan(steps=12, restart=5, batch=2, hidden=3, seed=2))
    assert other.tensors["w1"].tobytes() != one.tensors["w1"].tobytes()
