"""Sparse-MeZO: only the entries that are smallest in size are probed and moved. Knows the noise, no loss.

Liu et al., arXiv 2402.15751: theta +- eps m z, theta <- theta - lr c m z, with m = 1 where |theta| <= h of its tensor.
Here m itself is taken every `every` steps and kept, not h: B starts at 0, so its h is 0, and a mask read from the
present params would shut an entry of B out as soon as it has moved. Of equals all are in: at the start, all of B.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worker.types import Params
from worker.zo.methods import mezo
from worker.zo.methods.lezo import packed_smallest
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.optimizers import Buffers


@dataclass(frozen=True)
class State:
    """What Sparse-MeZO remembers: see `worker.zo.method.State` and `worker.zo.descent.Buffered`."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    masks: int = 0  # windows of `every` steps entered
    mask: tuple[
        NDArray[np.uint8], ...
    ] = ()  # of the last of them, bits packed [P / 8, rounded up]; () before the first
    buffers: Buffers = ()


@dataclass(frozen=True)
class SmallSpace:
    """The entries of each tensor that were smallest when the window began: a share `density` of them."""

    adapter: AdapterSpace
    density: float
    every: int

    def start(self) -> tuple[Params, State]:
        return self.adapter.start()[0], State()

    def enter(self, params: Params, state: State) -> tuple[Params, State]:
        """Takes the mask anew at multiples of `every`, or at the first step with finite losses after one; steps that
        were taken back are not counted."""
        due = (state.step - state.back) // self.every + 1
        if state.masks >= due:
            return params, state
        mask = packed_smallest(np.abs(params), self.density, self.adapter.layout.offsets)
        return params, replace(state, masks=due, mask=(mask,))

    def direction(self, params: Params, state: State, query: int) -> Params:
        """z of MeZO where the mask is 1, 0 elsewhere."""
        z = self.adapter.direction(params, mezo.State(step=state.step), query)
        z *= np.unpackbits(state.mask[0], count=len(z))
        return z

    def decay(self, params: Params, factor: float) -> Params:
        """All entries shrink, whatever the mask."""
        return self.adapter.decay(params, factor)
