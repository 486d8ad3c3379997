"""Specs, journals and adapters for the checkpoint tests: real recipes on the tiny base models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from db.contract import methods
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens.base_model import Base, open_base
from tests.bases import Architecture, tiny
from worker.runs import recipes
from worker.runs import replay as replaying
from worker.runs.replay import Point
from worker.types import Params


def base(arch: Architecture, folder: Path) -> Base:
    return open_base(f"tiny-{arch}", str(tiny(arch, folder)))


def spec(
    arch: Architecture = "llama", *, rank: int = 4, targets: tuple[str, ...] = ("q_proj", "v_proj"), **method: Any
) -> JobSpec:
    about = {"name": "mezo", "eps": 1e-2, "learning_rate": 1e-3} | method
    return JobSpec(
        model=f"tiny-{arch}",
        objective="lm",
        adapter=AdapterSpec(rank=rank, alpha=2.0 * rank, targets=targets),
        method=methods.settings(**about),
        training_file="file-a",
        steps=1000,
        batch_size=4,
        eval_every=100,
        seed=3,
    )


def journal(spec: JobSpec, base: Base, steps: int) -> list[list[float]]:
    """Losses such as a run would have measured: near 5, no two alike."""
    width = recipes.method(spec, recipes.layout(spec, base)).most
    return (5 + np.random.default_rng(0).normal(0, 0.01, (steps, width))).tolist()


def replay(spec: JobSpec, base: Base, journal: Sequence[Sequence[float]], start: Point | None = None) -> Point:
    return replaying.replay(recipes.method(spec, recipes.layout(spec, base)), journal, start)


def adapter(spec: JobSpec, base: Base) -> Params:
    """An adapter whose effect is large: both A and B are far from 0."""
    layout = recipes.layout(spec, base)
    return np.random.default_rng(1).normal(0, 0.1, layout.size).astype(np.float32)
