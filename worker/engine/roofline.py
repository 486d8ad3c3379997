"""How fast this machine multiplies: what a step's speed is held against. Knows torch, no model."""

import time
from collections.abc import Callable
from typing import Any

import torch

from worker.engine import processor

SHAPES = {"cpu": (1024, 576, 1536), "cuda": (8192, 4096, 4096)}  # rows, inputs, outputs: enough to fill the device


def peak_flops(device: str, dtype: str, seconds: float = 0.5) -> float:
    """The best rate seen within `seconds` of either of torch's matrix products (on a CPU also oneDNN's on packed
    weights), FLOP/s; a multiplication and an addition are two."""
    kind: torch.dtype = getattr(torch, dtype)
    place = torch.device(device)
    n, i, o = SHAPES[place.type]
    x, w = (torch.randn(rows, i, device=place, dtype=kind) for rows in (n, o))
    ways: list[Callable[[], Any]] = [lambda: torch.nn.functional.linear(x, w)]
    if place.type == "cpu" and kind != torch.float16 and processor.packs(kind):
        packed = torch.ops.mkldnn._reorder_linear_weight(w, 1024)
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""))
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for way in ways:
            begun = time.perf_counter()
            way()
            way()
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            best = max(best, 2 * 2.0 * n * i * o / (time.perf_counter() - begun))
    return best
