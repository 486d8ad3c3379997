"""Seconds a step of the engine path against a batched transformers loop and a MeZO-style loop, taken in turn."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.loops import BatchedScorer, MezoLoop
from bench.measure import gemm_rate, interleaved, spread
from cli.datasets import write
from db.bases import Base
from db.spec import AdapterSpec, JobSpec, MethodSpec
from worker import trainer
from worker.data import Dataset, examples
from worker.scoring.base import Scorer
from worker.trainer import Run
from worker.types import Loss, Trial

EPS, RATE = 1e-2, 1e-3


def spec(base: Base, rank: int = 8, batch: int = 16, seed: int = 7) -> JobSpec:
    """The job that every contender runs: MeZO, one probe pair, q and v, no evaluation."""
    return JobSpec(
        model=base.name,
        objective="choice",
        adapter=AdapterSpec(rank=rank, alpha=2.0 * rank, targets=("q_proj", "v_proj")),
        method=MethodSpec(name="mezo", eps=EPS, learning_rate=RATE),
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


class Timed:
    """A scorer that counts the seconds spent in it."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self.seconds = scorer, 0.0

    @property
    def capacity(self) -> int:
        return self._scorer.capacity

    def close(self) -> None:
        self._scorer.close()

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        begun = time.perf_counter()
        losses = self._scorer.score(trials)
        self.seconds += time.perf_counter() - begun
        return losses


def measure(base: Base, scorer: Scorer, rounds: int) -> dict[str, Any]:
    """Every figure of the bare engine path. `scorer` is the engine's; the loops bring their own copies of the model."""
    data, job = dataset(base), spec(base)
    timed = Timed(scorer)
    runs = {
        "engine": [trainer.start("bench", job, base, data)],
        "engine, 2 runs": [
            trainer.start(f"bench{i}", spec(base, rank, 16, i), base, data) for i, rank in ((0, 8), (1, 2))
        ],
    }
    first = runs["engine"][0]
    batched = BatchedScorer(str(base.source), first.layout)
    runs["batched transformers loop"] = [first]
    mezo = MezoLoop(str(base.source), first.layout, first.params, EPS, RATE)
    outside: list[float] = []

    def stepper(name: str, by: Scorer) -> Callable[[int], None]:
        def call(_: int) -> None:
            before, begun = timed.seconds, time.perf_counter()
            runs[name] = trainer.step(runs[name], by)
            if by is timed and name == "engine":
                outside.append(1 - (timed.seconds - before) / (time.perf_counter() - begun))

        return call

    def mezo_step(number: int) -> None:
        mezo.step(data.minibatch(job.seed, number, job.batch_size), number)

    seconds = interleaved(
        {
            "engine": stepper("engine", timed),
            "batched transformers loop": stepper("batched transformers loop", batched),
            "MeZO-style loop": mezo_step,
            "engine, 2 runs": stepper("engine, 2 runs", timed),
        },
        rounds,
    )
    agreed(runs["engine"][0], runs["batched transformers loop"][0])
    tokens = step_tokens(first, rounds)
    rate = gemm_rate()
    floor = 2 * sum(i * o for _, i, o in base.modules) * tokens / rate
    ratios = {n: spread([a / b for a, b in zip(seconds[n], seconds["engine"], strict=True)]) for n in seconds}
    return {
        "workload": f"{base.name}, choice, sentiment, MeZO pair, batch 16, rank 8 on q and v, float32",
        "scored tokens a step": tokens,
        "seconds a step": {n: spread(s) for n, s in seconds.items()},
        "scored tokens/s": {n: tokens / spread(seconds[n])["median"] for n in seconds if n != "engine, 2 runs"},
        "times the engine's step": ratios,
        "gemm FLOP/s": rate,
        "fraction of the floor": floor / spread(seconds["engine"])["median"],
        "outside scoring, share of a step": spread(outside[1:]),
    }


def step_tokens(run: Run, rounds: int) -> float:
    """Mean scored tokens of the steps that were counted."""
    batches = [run.data.minibatch(run.spec.seed, i, run.spec.batch_size) for i in range(1, rounds + 1)]
    return 2 * sum(e.tokens for batch in batches for e in batch) / rounds


def agreed(engine: Run, loop: Run) -> None:
    """Both took the same steps of the same method: their parameters may differ by rounding in the losses only."""
    assert engine.step == loop.step
    difference = float(abs(engine.params - loop.params).max())
    if not difference < 1e-3:
        raise AssertionError(f"the contenders did not do the same work: parameters differ by {difference}")


def replay_seconds(base: Base, steps: int = 1000) -> dict[str, Any]:
    """Seconds to rebuild an adapter from a journal of `steps` rows, no engine involved."""
    run = trainer.start("bench", replace_steps(spec(base), steps), base, Dataset(()))
    begun = time.perf_counter()
    done = trainer.replay(run, [[0.7 + i % 7 * 1e-3, 0.7] for i in range(steps)])
    assert done.step == steps
    return {"steps": steps, "parameters": run.layout.size, "seconds": time.perf_counter() - begun}


def replace_steps(job: JobSpec, steps: int) -> JobSpec:
    return job.model_copy(update={"steps": steps})
