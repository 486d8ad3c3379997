"""The job that service and bare engine are compared on, and how fast a journal is replayed. Knows no engine."""

import tempfile
import time
from pathlib import Path
from typing import Any

from cli.demo.datasets import write
from db.contract import methods
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens.base_model import Base
from worker.runs.data import Dataset, examples
from worker.runs.replay import replay
from worker.runs.run import start

EPS, RATE = 1e-2, 1e-3


def spec(base: Base, rank: int = 8, batch: int = 16, seed: int = 7) -> JobSpec:
    """MeZO, one probe pair, q and v, no evaluation."""
    return JobSpec(
        model=base.name,
        objective="choice",
        adapter=AdapterSpec(rank=rank, alpha=2.0 * rank, targets=("q_proj", "v_proj")),
        method=methods.settings(name="mezo", eps=EPS, learning_rate=RATE),
        training_file="bench",
        steps=1_000_000,
        batch_size=batch,
        eval_every=1_000_000,
        seed=seed,
    )


def dataset(base: Base) -> Dataset:
    """The demo's sentiment task, training rows only."""
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder))
        return Dataset(examples(base, files["sentiment_train"].read_bytes()))


def replay_seconds(base: Base, steps: int = 1000) -> dict[str, Any]:
    """Seconds to rebuild an adapter from a journal of `steps` rows, no engine involved."""
    run = start("bench", spec(base).model_copy(update={"steps": steps}), base, Dataset(()))
    begun = time.perf_counter()
    done = replay(run.method, [[0.7 + i % 7 * 1e-3, 0.7] for i in range(steps)])
    assert done.state.step == steps
    return {"steps": steps, "parameters": run.layout.size, "seconds": time.perf_counter() - begun}
