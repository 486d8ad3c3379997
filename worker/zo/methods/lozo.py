"""LOZO: low-rank probes of W, carried out inside an adapter of fixed rank. Knows windows of rank, no loss.

Chen et al., arXiv 2410.07698: dW = U V^T with U [outputs, r] fresh each step and V [inputs, r] redrawn every nu steps;
probes W +- eps U V^T, W <- W - lr c U V^T. The convention is the official code's: no 1/r, neither in probe nor update
(the paper's learning rate is r times ours). U and V are drawn once and the update uses the U that was measured (the
official code redraws U at refresh steps).

`scale` "rms" divides U V^T by sqrt(r), so that its entries have variance 1 whatever r, in probe and update alike: the
factorised MeZO of arXiv 2605.28760, which takes r of 128 to 512 for a dense direction.

In an adapter of rank R and scaling s = alpha / R a window is r rows of A, which hold V^T, and the same r columns of B,
where U / s accumulates, so s B A is the sum of the -lr c U V^T. `refresh` says what a new V does to the rank:
bank: V goes to the next r rows; when all floor(R / r) windows are used they are taken again in turn, V and U with them;
freeze: the first V stays;
recompress: the window is the last r rows; before V is redrawn, B A is folded into the first R - r, and what the
truncation loses is recorded in `State.truncation`.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from worker.types import Layout, Params
from worker.zo import noise
from worker.zo.linalg import product, recompress, tree_sum
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Buffers

Refresh = Literal["bank", "freeze", "recompress"]
Scale = Literal["none", "rms"]


@dataclass(frozen=True)
class State:
    """What LOZO remembers: see `worker.zo.method.State` and `worker.zo.descent.Buffered`."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    windows: int = 0  # times V was drawn
    truncation: tuple[float, ...] = ()  # with recompress: relative error of each truncation, Frobenius norm
    buffers: Buffers = ()


@dataclass(frozen=True)
class WindowSpace:
    """The present window's columns of B; A is written only when V is drawn, and is 0 where none was."""

    layout: Layout
    seed: int
    rank: int  # r of the window, at most layout.rank
    nu: int
    refresh: Refresh
    scale: Scale = "none"

    def start(self) -> tuple[Params, State]:
        return np.zeros(self.layout.size, dtype=np.float32), State()

    def enter(self, params: Params, state: State) -> tuple[Params, State]:
        """Opens the window that step `state.step` is due: at multiples of nu, or at the first step with finite losses
        after one; steps that were taken back are not counted. Momentum is carried over as N <- N V_old^T V_new / inputs
        (LOZO-M)."""
        if state.windows >= self._due(state.step - state.back):
            return params, state
        old, new = self._window(state.windows), self._window(state.windows + 1)
        entered, truncation = params.copy(), state.truncation
        if self.refresh == "recompress" and state.windows:
            entered, lost = recompress(self.layout, params, self.layout.rank - self.rank)
            truncation = (*truncation, lost)
        buffers = tuple(np.zeros_like(b) for b in state.buffers)
        for i in range(len(self.layout.modules)):
            right = self.layout.tensor(entered, 2 * i)[new]  # V^T
            if self.refresh != "bank" or state.windows < self._slots:
                place = Place(self.seed, Stream.RIGHT, state.windows, tensor=2 * i)
                right[:] = noise.normal(place, right.size).reshape(right.shape)
            if state.windows and buffers:
                turn = _turn(self.layout.tensor(params, 2 * i)[old], right)
                for kept, carried in zip(state.buffers, buffers, strict=True):
                    columns = self.layout.tensor(kept, 2 * i + 1)[:, old].astype(np.float64)
                    self.layout.tensor(carried, 2 * i + 1)[:, new] = product(columns, turn)
        return entered, replace(state, windows=state.windows + 1, truncation=truncation, buffers=buffers)

    def direction(self, params: Params, state: State, query: int) -> Params:  # noqa: ARG002
        """U / s, over sqrt(r) with `scale` "rms", in B's columns of the window, 0 elsewhere; U is drawn for all modules
        at once, in their order."""
        rows = [module.outputs for module in self.layout.modules]
        drawn = noise.normal(Place(self.seed, Stream.LEFT, state.step, query), sum(rows) * self.rank)
        divisor = self.layout.scaling * (math.sqrt(self.rank) if self.scale == "rms" else 1)
        drawn *= np.float32(1 / divisor)
        z = np.zeros(self.layout.size, dtype=np.float32)
        window, begin = self._window(state.windows), 0
        for i, outputs in enumerate(rows):
            end = begin + outputs * self.rank
            self.layout.tensor(z, 2 * i + 1)[:, window] = drawn[begin:end].reshape(outputs, self.rank)
            begin = end
        return z

    def decay(self, params: Params, factor: float) -> Params:
        """B alone shrinks, so that V stays what was drawn."""
        decayed = params.copy()
        for _, _, b in self.layout.pairs(decayed):
            b *= np.float32(factor)
        return decayed

    @property
    def _slots(self) -> int:
        """Windows that the adapter has room for."""
        return self.layout.rank // self.rank

    def _due(self, step: int) -> int:
        """Windows opened once step `step` is taken."""
        if self.refresh == "freeze" or (self.refresh == "bank" and self._slots == 1):
            return 1
        return step // self.nu + 1

    def _window(self, windows: int) -> slice:
        """Rows of A, columns of B, of the last of `windows` windows."""
        if self.refresh == "recompress":
            return slice(self.layout.rank - self.rank, self.layout.rank)
        begin = (max(0, windows - 1) % self._slots) * self.rank
        return slice(begin, begin + self.rank)


def _turn(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float64]:
    """V_old^T V_new / inputs for V^T [r, inputs] each, float64 [r, r]."""
    turn: NDArray[np.float64] = tree_sum(old[:, None, :].astype(np.float64) * new[None, :, :], 2) / new.shape[1]
    return turn
