"""How fast this machine multiplies: what a step's speed is held against. Knows torch, no model."""

import time

import torch

SHAPES = {"cpu": (1024, 576, 1536), "cuda": (8192, 4096, 4096)}  # rows, inputs, outputs: enough to fill the device


def peak_flops(device: str, dtype: str, seconds: float = 0.5) -> float:
    """The best rate of a matrix product seen within `seconds`, FLOP/s; a multiplication and an addition are two."""
    n, i, o = SHAPES[device]
    kind = getattr(torch, dtype)
    x, w = (torch.randn(rows, i, device=device, dtype=kind) for rows in (n, o))
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        torch.nn.functional.linear(x, w)
        torch.nn.functional.linear(x, w)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * 2.0 * n * i * o / (time.perf_counter() - begun))
    return best
