"""One real vLLM engine, beside the oracle, on a tiny model. The fixture that goes through the models is `pair`, in
`tests/worker/conftest.py`: who scores and who serves share its engines."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.worker.scoring.cases import linears
from worker.engine import pieces
from worker.oracle.torch_scorer import TorchScorer
from worker.scoring.engine_scorer import EngineScorer
from worker.types import Module

MODELS = {
    "opt": ("opt", True),
    "llama-tied": ("llama", True),
    "llama-untied": ("llama", False),
    "qwen2": ("qwen2", True),
}
SLOTS, MAX_TOKENS, SERVE_SLOTS = 3, 160, 3
SERVE_CACHE = 2048  # tokens: more requests can run than vLLM has room for runs of theirs, and not so many as may come


@dataclass(frozen=True)
class Pair:
    path: Path
    modules: list[Module]
    vllm: EngineScorer
    oracle: TorchScorer


def open_pair(path: Path) -> Iterator[Pair]:
    """Both, until the generator is closed. The model is so small that its products would be left whole: here they are
    cut as a large one's are."""
    torch.set_num_threads(1)  # tiny models; and vLLM forbids setting it later
    oracle = TorchScorer(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "FLOOR", 0)
        scorer = EngineScorer(
            path,
            slots=SLOTS,
            max_rank=8,
            max_tokens=MAX_TOKENS,
            serve_slots=SERVE_SLOTS,
            serve_tokens=MAX_TOKENS,
            serve_cache=SERVE_CACHE,
        )
    yield Pair(path, linears(path), scorer, oracle)
    scorer.close()
    oracle.close()
