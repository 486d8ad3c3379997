"""An engine of the widest rank there is, beside the oracle: in a process of its own, for a process holds one engine."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bases import tiny
from tests.worker.scoring.cases import layout, linears, lm, probe

RANKS = 130, 512  # of adapters: above 64, and the most


def compare(path: Path) -> float:
    """The largest difference of two losses, nats a token, over adapters of RANKS on every module."""
    from worker.oracle.torch_scorer import TorchScorer
    from worker.scoring.engine_scorer import EngineScorer

    rng, modules = np.random.default_rng(1), linears(path)
    oracle, engine = TorchScorer(path), EngineScorer(path, slots=2, max_rank=RANKS[-1], max_tokens=160)
    shapes = [layout(modules, rank, 2.0 * rank) for rank in RANKS]
    trials = [lm(rng, shape, probe(rng, shape)) for shape in shapes]
    mine, theirs = engine.score(trials), oracle.score(trials)
    bare = oracle.score([lm(rng, None, None)])[0]
    engine.close()
    oracle.close()
    assert min(abs(loss.mean - bare.mean) for loss in theirs) > 1e-3
    return max(abs(a.mean - b.mean) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.slow
def test_rank_512_is_scored_as_peft_does(tmp_path: Path):
    program = (
        f"from tests.worker.scoring.test_wide import *\nprint(compare(Path({str(tiny('llama', tmp_path, True))!r})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split()[-1]) < 1e-5
