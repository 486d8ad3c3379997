"""`python -m tests.worker.engine.lowered FOLDER`: what a process finds and scores rightly at the level it was started
at, as JSON. Started by test_processor.py with less than the machine has."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.bases import tiny
from tests.quantised import Scheme, quantised
from worker.engine import kernels, processor, weights
from worker.scoring.engine_scorer import EngineScorer
from worker.scoring.self_check import self_check

BASES: dict[str, tuple[Scheme | None, str]] = {
    "plain": (None, "float32"),
    "w4a16": ("w4a16", "float16"),
    "w8a8": ("w8a8", "float32"),
    "fp8": ("fp8", "float32"),
}


def checked(path: Path, dtype: str) -> Any:
    scorer = EngineScorer(path, slots=3, max_rank=8, max_tokens=160, dtype=dtype)
    try:
        return self_check(scorer)["max_difference"]
    finally:
        scorer.close()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    plain = tiny("llama", folder)
    found = {
        "level": processor.level(),
        "unpacked": {str(kind): processor.why_unpacked(kind) for kind in processor.FINE},
        "plain": {str(kind): processor.fault(kernels.multiply, kind) for kind in processor.FINE},
        "int8": weights.int8_fault(torch.float32),
        "int4": hasattr(torch.ops._C, "cpu_gemm_wna16"),
        "off": {
            name: checked(quantised(plain, scheme, folder)[0] if scheme else plain, dtype)
            for name, (scheme, dtype) in BASES.items()
        },
    }
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
