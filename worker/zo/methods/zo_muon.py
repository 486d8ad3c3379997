"""ZO-Muon: probes of W in a projected subspace P Psi, moves along the estimate's matrix sign. Knows windows, no loss.

Lang et al., arXiv 2602.17155: P [outputs, r] with orthonormal columns, redrawn every nu steps; Psi_i [r, inputs] of
unit variance fresh each step; one-sided probes W + eps P Psi_i, c_i = (L_i - L_0) / eps, and
W <- W - lr P msign(mean_i c_i Psi_i), msign(U S V^T) = U V^T. All queries of a step have one P, and the move has the P
that was measured.

In an adapter of rank R and scaling s = alpha / R a window is r columns of B, which hold P, and the same r rows of A,
where Psi / s accumulates: the reverse of LOZO. `refresh` says what a new P does to the rank:
bank: P goes to the next r columns; when all floor(R / r) windows are used they are taken again in turn, P with them;
freeze: the first P stays.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from worker.types import Layout, Params
from worker.zo import noise
from worker.zo.frames import frames
from worker.zo.linalg import matrix_sign
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Buffers
from worker.zo.windows import Windows

Refresh = Literal["bank", "freeze"]


@dataclass(frozen=True)
class State:
    """What ZO-Muon remembers: see `worker.zo.method.State` and `worker.zo.descent.Buffered`."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    windows: int = 0  # times a window was opened
    buffers: Buffers = ()


@dataclass(frozen=True)
class ProjectedSpace:
    """The present window's rows of A; B is written only when P is drawn, and is 0 where none was."""

    layout: Layout
    seed: int
    rank: int  # r, at most layout.rank and the outputs of every module
    nu: int
    refresh: Refresh

    @property
    def windows(self) -> Windows:
        return Windows(self.layout.rank, self.rank, self.nu, frozen=self.refresh == "freeze")

    def start(self) -> tuple[Params, State]:
        return np.zeros(self.layout.size, dtype=np.float32), State()

    def enter(self, params: Params, state: State) -> tuple[Params, State]:
        """Opens the window that step `state.step` is due: at multiples of nu, or at the first step with finite losses
        after one; steps that were taken back are not counted."""
        window = state.windows
        if window >= (state.step - state.back) // self.nu + 1:
            return params, state
        if self.windows.empty(window):
            params = params.copy()
            outputs = [module.outputs for module in self.layout.modules]
            for i, p in enumerate(frames(Place(self.seed, Stream.PROJECTION, window), outputs, self.rank)):
                self.layout.tensor(params, 2 * i + 1)[:, self.windows.place(window)] = p
        return params, replace(state, windows=window + 1)

    def direction(self, params: Params, state: State, query: int) -> Params:  # noqa: ARG002
        """Psi / s in A's rows of the window, 0 elsewhere; Psi is drawn for all modules at once, in their order."""
        sizes = [self.rank * module.inputs for module in self.layout.modules]
        drawn = noise.normal(Place(self.seed, Stream.PROJECTED, state.step, query), sum(sizes))
        drawn *= np.float32(1 / self.layout.scaling)
        z = np.zeros(self.layout.size, dtype=np.float32)
        rows, begin = self.windows.place(state.windows - 1), 0
        for i, size in enumerate(sizes):
            self.layout.tensor(z, 2 * i)[rows] = drawn[begin : begin + size].reshape(self.rank, -1)
            begin += size
        return z

    def decay(self, params: Params, factor: float) -> Params:
        """A alone shrinks, so that P stays what was drawn."""
        decayed = params.copy()
        for _, a, _ in self.layout.pairs(decayed):
            a *= np.float32(factor)
        return decayed


@dataclass(frozen=True)
class Muon:
    """direction = msign(gradient) / s of each A, whose rows outside of the window are 0 and stay it: W moves by
    P msign(g). Modules of one shape are worked on together."""

    layout: Layout
    buffers: int = 0

    def apply(self, gradient: Params, buffers: Buffers, step: int) -> tuple[Params, Buffers]:  # noqa: ARG002
        alike: dict[int, list[int]] = defaultdict(list)
        for i, module in enumerate(self.layout.modules):
            alike[module.inputs].append(i)
        moved = np.zeros_like(gradient)
        for members in alike.values():
            g = np.stack([self.layout.tensor(gradient, 2 * i) for i in members]).astype(np.float64)
            rows = np.flatnonzero(g.any((0, 2)))
            if not rows.size:  # equal losses: there is no direction
                continue
            for i, sign in zip(members, matrix_sign(g[:, rows]) / self.layout.scaling, strict=True):
                self.layout.tensor(moved, 2 * i)[rows] = sign
        return moved, buffers
