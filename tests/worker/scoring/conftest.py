"""One real vLLM engine at a time, beside the oracle, on each tiny model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.bases import tiny
from tests.worker.scoring.cases import linears
from worker.oracle.torch_scorer import TorchScorer
from worker.scoring.engine_scorer import EngineScorer
from worker.types import Module

MODELS = {
    "opt": ("opt", True),
    "llama-tied": ("llama", True),
    "llama-untied": ("llama", False),
    "qwen2": ("qwen2", True),
}
SLOTS, MAX_TOKENS = 3, 160


@dataclass(frozen=True)
class Pair:
    path: Path
    modules: list[Module]
    vllm: EngineScorer
    oracle: TorchScorer


def _pair(path: Path) -> Iterator[Pair]:
    torch.set_num_threads(1)  # tiny models; and vLLM forbids setting it later
    oracle = TorchScorer(path)
    scorer = EngineScorer(path, slots=SLOTS, max_rank=8, max_tokens=MAX_TOKENS)
    yield Pair(path, linears(path), scorer, oracle)
    scorer.close()
    oracle.close()


@pytest.fixture(scope="session", params=list(MODELS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The scorer and its oracle on each architecture in turn; pytest groups the tests so that each starts once."""
    arch, tied = MODELS[request.param]
    yield from _pair(tiny(arch, tmp_path_factory.getbasetemp(), tied))
