"""Whether an engine's losses are the oracle's: asked at every start, before anything is trained. Knows no job."""

import gc

import numpy as np

from worker.oracle.torch_scorer import TorchScorer
from worker.quantisation import remark
from worker.quantisation import tolerance as allowed
from worker.scoring.engine_scorer import EngineScorer
from worker.scoring.random_probes import probes
from worker.types import CannotCompute, Module


class SelfCheckFailed(CannotCompute):
    """The engine's losses are not the oracle's: nothing may be trained on it."""


def self_check(scorer: EngineScorer, seed: int = 0, tolerance: float | None = None) -> dict[str, float | str]:
    """Score a few random probes with it and with transformers and PEFT, loaded for the occasion and dropped again.

    Returns what to record of this engine: the largest difference of a log-probability (nats), dtype, versions.
    Raises SelfCheckFailed where it exceeds `tolerance` (None: what the dtype and the base's format allow).
    """
    if tolerance is None:
        tolerance = allowed(scorer.path, scorer.dtype)
    modules = tuple(Module(name, *shape) for name, shape in scorer.engine.modules.items())
    trials = probes(modules, scorer.max_rank, scorer.engine.context, scorer.engine.vocab, seed)
    mine = scorer.logprobs(trials)
    oracle = TorchScorer(scorer.path, scorer.dtype)
    theirs = oracle.logprobs(trials)
    oracle.close()
    del oracle
    gc.collect()
    pairs = [
        (a, b)
        for x, y in zip(mine, theirs, strict=True)
        for e, f in zip(x, y, strict=True)
        for a, b in zip(e, f, strict=True)
    ]
    worst = max(float(np.abs(a - b).max()) for a, b in pairs)
    if not worst <= tolerance:
        raise SelfCheckFailed(
            f"log-probabilities differ from transformers by up to {worst:.3g} nats (tolerance {tolerance:g}, "
            f"{scorer.dtype}, {scorer.engine.versions()}): this engine must not train{remark(scorer.path)}"
        )
    return {"max_difference": worst, "dtype": scorer.dtype, **scorer.engine.versions()}
