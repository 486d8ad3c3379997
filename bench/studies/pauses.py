"""`python -m bench.studies.pauses`: what one thread and its pauses cost training, and how long one may wait for them.

Everything is measured in turns in one process, on its processor's clock and with one thread of computation: other work
on the machine makes wall-clock longer and threads wait for each other, most of all in many small products. And each by
the least of its rounds. Writes bench/results/pauses.json, after each wave: a run that is cut has told what it has.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from worker.engine.owner import Owner
    from worker.scoring.engine_scorer import EngineScorer
    from worker.types import Trial

ROUNDS: Final = 3
WAVES: Final = ((1024, 30, 4), (4096, 30, 4), (4096, 2000, 4), (1024, 30, 29))  # tokens, a row, scored
PROMPTS: Final = (20, 35, 50, 65, 89)
WHOLE: Final = 1 << 60


class Watch:
    """A `Served` that has nothing to serve, and notes when it is asked within an act."""

    def __init__(self, owner: "Owner") -> None:
        self._owner = owner
        self.asked: list[float] = []

    @property
    def runnable(self) -> bool:
        if self._owner._running:
            self.asked.append(time.process_time())
        return False

    def step(self) -> None:
        raise AssertionError("nothing is served")

    def failed(self, error: BaseException) -> None:
        raise error


def main() -> None:
    from bench.report.measure import RESULTS, machine
    from bench.workloads import base_of
    from cli.local.demo_model import DEMO_MODEL
    from worker.scoring.engine_scorer import EngineScorer

    base = base_of(DEMO_MODEL, Path(".onward"))
    scorer = EngineScorer(str(base.source), slots=64, max_tokens=4096)
    found: dict[str, Any] = {"machine": machine(), "prompts": PROMPTS, "rounds": ROUNDS}
    found |= {"room": scorer.curve().room(1, 0.1), "waves": []}
    out = RESULTS / "pauses.json"
    for wave in WAVES:
        trials = _trials(scorer, *wave)
        found["waves"].append(
            {**dict(zip(("tokens", "row", "scored"), wave, strict=True)), **_measured(scorer, trials)}
        )
        print(json.dumps(found["waves"][-1]), flush=True)
        out.write_text(json.dumps(found, indent=2) + "\n")
    scorer.close()


def _measured(scorer: "EngineScorer", trials: "Sequence[Trial]") -> dict[str, Any]:
    """Seconds: of a wave as it is and without pauses and pieces, of its longest stretch, of an idle engine's first
    token. Of each the least of the rounds; the first token's is the median over prompts."""
    scorer.score(trials)  # memory is taken, products are packed
    with_pauses, without = [], []
    stretches: list[Any] = []
    firsts: list[list[float]] = []
    for number in range(ROUNDS):
        firsts.append([scorer.owner.run(partial(_first, scorer, n)) for n in PROMPTS])
        ways = [True, False] if number % 2 else [False, True]
        for paused in ways:
            if paused:
                took, gaps = _watched(scorer, trials)
                with_pauses.append(took)
                stretches.append(gaps)
            else:
                with _whole(scorer):
                    without.append(_took(scorer, trials))
    longest = float(np.min(stretches, axis=0).max())
    first = median(np.min(firsts, axis=0))
    return {
        "with": min(with_pauses),
        "without": min(without),
        "share": min(without) / min(with_pauses),
        "points": len(stretches[0]),
        "longest": longest,
        "first_token": first,
        "longest_of_first_token": longest / first,
    }


def _took(scorer: "EngineScorer", trials: "Sequence[Trial]") -> float:
    begun = time.process_time()
    scorer.score(trials)
    return time.process_time() - begun


def _watched(scorer: "EngineScorer", trials: "Sequence[Trial]") -> tuple[float, Any]:
    watch = Watch(scorer.owner)
    scorer.owner.serve(watch)
    took = _took(scorer, trials)
    return took, np.diff(watch.asked)


@contextmanager
def _whole(scorer: "EngineScorer") -> Iterator[None]:
    """Within this, products, attention and logits are whole, and nobody is asked."""
    engine, owner = scorer.engine, scorer.owner
    kept = engine.rows, engine._pairs
    cut = [(m, name, vars(m).pop(name)) for m in engine._runner.model.modules() for name in _cut(m)]
    engine.rows = engine._pairs = WHOLE
    owner.gives_way = lambda: False  # type: ignore[method-assign]
    try:
        yield
    finally:
        del owner.gives_way
        engine.rows, engine._pairs = kept
        for module, name, own in cut:
            setattr(module, name, own)


def _cut(module: Any) -> list[str]:
    return [name for name in ("apply", "forward") if "_in_pieces" in str(vars(module).get(name))]


def _first(scorer: "EngineScorer", length: int) -> float:
    """To the first token of a request that nobody else keeps waiting."""
    engine = scorer.engine
    ids = np.random.default_rng(time.process_time_ns()).integers(0, engine.vocab, length).tolist()
    sampling = engine._llm.get_default_sampling_params()
    sampling.max_tokens = 1
    begun = time.process_time()
    engine.add_request(f"first-{begun}", ids, sampling)
    while engine.runnable:
        engine.step()
    return time.process_time() - begun


def _trials(scorer: "EngineScorer", tokens: int, row: int, scored: int) -> "list[Trial]":
    """A pair of probes, r8 on q and v, on as many rows as one wave holds."""
    from worker.types import Candidate, Example, Layout, Module, Trial

    rng = np.random.default_rng(tokens + row)
    modules = [Module(n, *s) for n, s in scorer.engine.modules.items() if n.endswith(("q_proj", "v_proj"))]
    layout = Layout(8, 16.0, tuple(modules))

    def text() -> Example:
        ids = rng.integers(0, scorer.engine.vocab, row + 1, dtype=np.int32)
        at = np.arange(row - scored, row, dtype=np.int32)
        return Example((ids[:-1],), (Candidate(0, at, ids[row - scored + 1 :]),))

    rows = tuple(text() for _ in range(tokens // row // 2))
    params = [(1e-2 * rng.standard_normal(layout.size)).astype(np.float32) for _ in range(2)]
    return [Trial(layout, probe, rows, "lm") for probe in params]


if __name__ == "__main__":
    import os

    os.environ.setdefault("OMP_PROC_BIND", "false")
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "0"
    from worker.environment import prepare

    prepare(1, "bench.studies.pauses")
    main()
