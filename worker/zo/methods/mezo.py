"""MeZO on the adapter's own parameters: every entry of A and B is perturbed. Knows the noise, no loss.

Malladi et al., arXiv 2305.17333, algorithm 1, on LoRA parameters (its table 18): probes theta +- eps z with z of unit
variance over all of theta = (A, B), theta <- theta - lr c z. A starts as PEFT's, B at 0.
"""

from dataclasses import dataclass

import numpy as np

from worker.types import Layout, Params
from worker.zo import noise
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Buffers


@dataclass(frozen=True)
class State:
    """What MeZO remembers: see `worker.zo.method.State` and `worker.zo.descent.Buffered`."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    buffers: Buffers = ()


@dataclass(frozen=True)
class AdapterSpace:
    """All P parameters of the adapter."""

    layout: Layout
    seed: int

    def start(self) -> tuple[Params, State]:
        params = np.zeros(self.layout.size, dtype=np.float32)
        for i, (module, a, _) in enumerate(self.layout.pairs(params)):
            a[:] = noise.kaiming(Place(self.seed, Stream.START, 0, tensor=2 * i), self.layout.rank, module.inputs)
        return params, State()

    def enter(self, params: Params, state: State) -> tuple[Params, State]:
        return params, state

    def direction(self, params: Params, state: State, query: int) -> Params:  # noqa: ARG002
        """z ~ noise of (seed, step, query); tensor i has the numbers from `layout.offsets[i]` on."""
        return noise.normal(Place(self.seed, Stream.PROBE, state.step, query), self.layout.size)

    def decay(self, params: Params, factor: float) -> Params:
        return params * np.float32(factor)
