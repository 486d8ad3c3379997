"""Serving on a GPU: decode steps as CUDA graphs with vLLM's own LoRA kernels, and how far launches may run ahead. Knows
no adapter, no request and no trial.

A graph is captured as vLLM starts, before anything of ours stands in for a layer's own, so what it replays is vLLM's.
A forward that scores says no graph in its context and is run as it is written, with our grouped products. Nothing is
compiled: what is compiled would not see who stands in.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import torch
from vllm.platforms import current_platform

from worker.types import CannotCompute

# Stretches of a forward between two pauses that may be launched and not done: enough to keep a device busy, and what a
# request waits for beside the one under way.
MOST: Final = 32


class Mark(Protocol):
    """A point in a device's work, as `torch.cuda.Event` is one."""

    def synchronize(self) -> None:
        """Returns once the work before it is done."""


def arguments(graphs: bool) -> dict[str, Any]:
    """vLLM's: without `graphs` every step is run as it is written; with them a step that only decodes is one launch,
    where the platform has such graphs (a CPU has none, and runs it as it is written too)."""
    if not graphs:
        return {"enforce_eager": True}
    return {"enforce_eager": False, "compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}}


def want() -> None:
    """Raises CannotCompute where vLLM captures no graphs. Its LoRA kernels for CPUs also give a token without an
    adapter that of the last place."""
    if not current_platform.is_cuda_alike():
        where = current_platform.device_name
        raise CannotCompute(f"ONWARD_SERVE_GRAPHS is for GPUs: vLLM captures no graphs on this platform ({where}).")


class Ahead:
    """Holds back who launches, so that a pause is not behind all of a forward that is launched already: at most `most`
    stretches are. `mark` marks the end of what is launched; None where computing is done when a call returns."""

    def __init__(self, mark: Callable[[], Mark] | None, most: int = MOST) -> None:
        self._mark, self._most = mark, most
        self._marks: deque[Mark] = deque()

    def stretch(self) -> None:
        """One more is launched; returns once all but the last `most` are done."""
        if self._mark is None:
            return
        self._marks.append(self._mark())
        if len(self._marks) > self._most:
            self._marks.popleft().synchronize()


def ahead(device: torch.device) -> Ahead:
    """For launches on this device's current stream."""
    return Ahead(_cuda_mark if device.type == "cuda" else None)


def _cuda_mark() -> Mark:
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event
