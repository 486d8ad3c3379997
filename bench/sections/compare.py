"""Why not a training loop? Every contender's step on every workload, taken in turn in one process, as ratios.

Knows the contenders' face, clocks and floors; how each one works is `contenders`'.
"""

import gc
import os
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import workloads
from bench.contenders.line_up import Contender, Jobs, contender
from bench.contenders.strong import Loaded, load
from bench.report.measure import Floor, Timed, spread
from bench.workloads import CACHED, ENGINE, STRONG, Workload
from db.contract.tokens.base_model import Base

# Nats between contenders' losses, by dtype. What was measured on a CPU, two probes of batch 16: float32 below 1e-5;
# bfloat16 9e-3 (SmolLM2-135M; OPT-125M's shape 1.4e-3), which is what the probes themselves differ by, so that it says
# no more than that the base does the same; float16 3.3e-4 (OPT-125M's shape, batch 2, loops only).
TOLERANCES = {"float32": 2e-4, "float16": 5e-3, "bfloat16": 2e-2}
PROMPT_BYTES = 4 << 30


class Resident:
    """A base model and what contenders keep of it between workloads."""

    def __init__(self, base: Base, dtype: str = "float32") -> None:
        self.base, self.dtype = base, dtype
        self._scorer: Timed | None = None

    @cached_property
    def loaded(self) -> Loaded:
        return load(str(self.base.source))

    @property
    def scorer(self) -> Timed:
        if self._scorer is None:
            from worker.scoring.engine_scorer import EngineScorer

            path, dtype = str(self.base.source), self.dtype
            self._scorer = Timed(EngineScorer(path, slots=64, dtype=dtype, prompt_bytes=PROMPT_BYTES))
        return self._scorer

    def close(self) -> None:
        if self._scorer is not None:
            self._scorer.close()


def compare(
    home: Path, chosen: Sequence[Workload], quick: bool, say: Callable[[str, dict[str, Any]], None]
) -> dict[str, Any]:
    """The figures of each workload by name, said as they come. `quick` takes at most 2 rounds of each."""
    found: dict[str, Any] = {}
    floors: dict[str, Floor] = {}
    for model, dtype in dict.fromkeys((w.model, w.dtype) for w in chosen):
        floor = floors.setdefault(dtype, Floor(dtype=dtype))
        resident = Resident(workloads.base_of(model, home), dtype)
        for w in (w for w in chosen if (w.model, w.dtype) == (model, dtype)):
            found[w.name] = measure(w, resident, floor, min(w.rounds, 2) if quick else w.rounds)
            say(w.name, found[w.name])
            gc.collect()
        resident.close()
        del resident
        gc.collect()
    return found


def measure(w: Workload, resident: Resident, floor: Floor, rounds: int) -> dict[str, Any]:
    """One workload: a round that is not counted, then `rounds` in which all take turns, odd ones in reverse order."""
    base = resident.base
    jobs = Jobs(w, base)
    steps = range(rounds + 1)
    them: dict[str, Contender] = {
        name: contender(name, jobs, str(base.source), lambda: resident.loaded, lambda: resident.scorer)
        for name in w.who
    }
    prompts = {name: _prompts(c, steps, floor) for name, c in them.items()}
    difference = agreed({name: c.first() for name, c in them.items()}, resident.dtype)
    wall: dict[str, list[float]] = {name: [] for name in them}
    cpu: dict[str, list[float]] = {name: [] for name in them}
    outside: list[float] = []
    for number in steps:
        for name in list(them)[:: 1 if number % 2 == 0 else -1]:
            inside = resident.scorer.seconds if name == ENGINE else 0.0
            busy, begun = time.process_time(), time.perf_counter()
            them[name].step(number)
            floor.settle()
            took, busy = time.perf_counter() - begun, time.process_time() - busy
            if number:
                wall[name].append(took)
                cpu[name].append(busy)
                if name == ENGINE:
                    outside.append(1 - (resident.scorer.seconds - inside) / took)
        floor.gemm(0.3)
    tokens = [jobs.tokens(i) for i in steps[1:]]
    least = [
        floor.seconds(base, t, jobs.rows(i), w.rank, jobs.runs[0].layout.modules)
        for i, t in zip(steps[1:], tokens, strict=True)
    ]
    mean = sum(tokens) / len(tokens)
    found: dict[str, Any] = {
        "workload": w.say(resident.dtype),
        "rounds": rounds,
        "scored tokens a step": mean,
        "floor seconds a step": sum(least) / len(least),
        "largest difference of losses": difference,
        "contenders": {},
    }
    for name in them:
        found["contenders"][name] = {
            "seconds a step": spread(wall[name]),
            "cpu seconds a step": spread(cpu[name]),
            "cores used": spread([c / t for c, t in zip(cpu[name], wall[name], strict=True)]),
            "scored tokens/s": spread([n / t for n, t in zip(tokens, wall[name], strict=True)]),
            "fraction of the floor": spread([f / t for f, t in zip(least, wall[name], strict=True)]),
            "times onward's step": spread([a / b for a, b in zip(wall[name], wall[ENGINE], strict=True)]),
            "times onward's processor time": spread([a / b for a, b in zip(cpu[name], cpu[ENGINE], strict=True)]),
            **prompts[name],
        }
    if outside:
        found["contenders"][ENGINE]["outside scoring, share of a step"] = spread(outside)
    for name in {STRONG, CACHED} & set(them):
        found["contenders"][name]["compiled"] = resident.loaded.compiled
    return found


def _prompts(c: Contender, steps: Sequence[int], floor: Floor) -> dict[str, Any]:
    """What prompts that are computed once a job cost, where there are any: counted apart from the steps."""
    begun = time.perf_counter()
    tokens = c.warm(steps)
    floor.settle()
    return {"prompt tokens": tokens, "prompt seconds": time.perf_counter() - begun} if tokens else {}


def agreed(first: dict[str, list[float]], dtype: str = "float32") -> float:
    """The largest difference of losses on the first minibatch. Raises AssertionError where the contenders do not do the
    same work."""
    longest = max(first.values(), key=len)
    worst = max(abs(a - b) for own in first.values() for a, b in zip(own, longest, strict=False))
    if not worst < TOLERANCES[dtype]:
        raise AssertionError(f"the contenders do not do the same work: {first}")
    return worst


def environment() -> dict[str, Any]:
    """What every contender of this process computes under."""
    import torch

    names = ("KMP_BLOCKTIME", "KMP_TPAUSE", "OMP_NUM_THREADS", "OMP_PROC_BIND")
    return {
        "threads": torch.get_num_threads(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "preloaded": [Path(p).name for p in os.environ.get("LD_PRELOAD", "").split(":") if p],
        "environment": {n: os.environ[n] for n in names if n in os.environ},
    }
