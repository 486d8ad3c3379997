"""An adapter of three layers, and a job on it. Knows no method."""

import hashlib
from typing import Any

from db.contract import methods
from db.contract.spec import AdapterSpec, JobSpec
from worker.runs import recipes
from worker.types import Layout, Module
from worker.zo.method import Method

SEED = 23
LAYOUT = Layout(
    rank=4,
    alpha=6.0,
    modules=(
        Module("model.layers.0.q_proj", 6, 5),
        Module("model.layers.0.v_proj", 6, 3),
        Module("model.layers.1.q_proj", 6, 5),
        Module("model.layers.1.v_proj", 6, 3),
        Module("model.layers.10.q_proj", 6, 5),
    ),
)


def made(
    name: str, learning_rate: float = 0.02, steps: int = 100, profile: bytes | None = None, **settings: object
) -> Method[Any]:
    """The method as a job's spec makes it, with the `profile` that it names where it reads one."""
    settings |= {} if profile is None else {"profile": hashlib.sha256(profile).hexdigest()}
    method = methods.settings(**{"name": name, "learning_rate": learning_rate, "eps": 1e-2, **settings})
    spec = JobSpec(
        model="m", objective="lm", training_file="file", steps=steps, batch_size=1, eval_every=1, seed=SEED,
        adapter=AdapterSpec(rank=LAYOUT.rank, alpha=LAYOUT.alpha, targets=("x",)), method=method,
    )  # fmt: skip
    return recipes.method(spec, LAYOUT, profile=profile)
