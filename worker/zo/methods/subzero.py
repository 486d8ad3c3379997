"""SubZero: probes of W in a random subspace U Z V^T, carried out inside an adapter. Knows windows of rank, no loss.

Yu et al., arXiv 2410.08989, algorithm 1: U [outputs, r] and V [inputs, r] with orthonormal columns, redrawn every nu
(its T0) steps, Z [r, r] of unit variance fresh each step; dW = sqrt(outputs inputs) / r U Z V^T, whose entries have
variance 1; probes W +- eps dW, W <- W - lr c dW.

In an adapter of rank R and scaling s = alpha / R a window is r rows of A, which hold sqrt(inputs) V^T, and the same r
columns of B, where sqrt(outputs) / r U Z / s accumulates: s B A is the sum of the -lr c dW. A new U costs no rank, for
B's columns take any sum: it is drawn with every window. `refresh` says what becomes of V:
bank: V goes to the next r rows; when all floor(R / r) windows are used they are taken again in turn, each with its V;
freeze: the first V stays.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from worker.types import Layout, Params
from worker.zo import noise
from worker.zo.frames import frames
from worker.zo.linalg import product
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Buffers
from worker.zo.windows import Windows

Refresh = Literal["bank", "freeze"]


@dataclass(frozen=True)
class State:
    """What SubZero remembers: see `worker.zo.method.State` and `worker.zo.descent.Buffered`."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    windows: int = 0  # times U was drawn
    left: tuple[Params, ...] = ()  # U of every module in order, laid end to end, in one vector
    buffers: Buffers = ()


@dataclass(frozen=True)
class SubspaceSpace:
    """The present window's columns of B, in the span of U; A is written only when V is drawn, and is 0 where none
    was."""

    layout: Layout
    seed: int
    rank: int  # r, at most layout.rank and the smaller side of every module
    nu: int
    refresh: Refresh

    @property
    def windows(self) -> Windows:
        return Windows(self.layout.rank, self.rank, self.nu, frozen=self.refresh == "freeze")

    def start(self) -> tuple[Params, State]:
        return np.zeros(self.layout.size, dtype=np.float32), State()

    def enter(self, params: Params, state: State) -> tuple[Params, State]:
        """Draws the U and V that step `state.step` is due: at multiples of nu, or at the first step with finite losses
        after one; steps that were taken back are not counted."""
        if state.windows >= (state.step - state.back) // self.nu + 1:
            return params, state
        window, modules = state.windows, self.layout.modules
        if self.windows.empty(window):
            params = params.copy()
            right = frames(Place(self.seed, Stream.FRAME_RIGHT, window), [m.inputs for m in modules], self.rank)
            rows = self.windows.place(window)
            for i, v in enumerate(right):
                self.layout.tensor(params, 2 * i)[rows] = v.T * math.sqrt(modules[i].inputs)
        left = frames(Place(self.seed, Stream.FRAME_LEFT, window), [m.outputs for m in modules], self.rank)
        flat = np.concatenate([u.astype(np.float32).ravel() for u in left])
        return params, replace(state, windows=window + 1, left=(flat,))

    def direction(self, params: Params, state: State, query: int) -> Params:  # noqa: ARG002
        """sqrt(outputs) / r U Z / s in B's columns of the window, 0 elsewhere; Z is drawn for all modules at once, in
        their order."""
        r, columns, begin = self.rank, self.windows.place(state.windows - 1), 0
        count = len(self.layout.modules)
        cores = noise.normal(Place(self.seed, Stream.CORE, state.step, query), count * r * r).reshape(count, r, r)
        z = np.zeros(self.layout.size, dtype=np.float32)
        for i, module in enumerate(self.layout.modules):
            end = begin + module.outputs * r
            u = state.left[0][begin:end].reshape(module.outputs, r).astype(np.float64)
            scale = math.sqrt(module.outputs) / (r * self.layout.scaling)
            self.layout.tensor(z, 2 * i + 1)[:, columns] = product(u, cores[i].astype(np.float64)) * scale
            begin = end
        return z

    def decay(self, params: Params, factor: float) -> Params:
        """B alone shrinks, so that V stays what was drawn."""
        decayed = params.copy()
        for _, _, b in self.layout.pairs(decayed):
            b *= np.float32(factor)
        return decayed
