"""DiZO: a descent, and every so many steps how far each module has come from its start is scaled. Knows no noise of
the descent's and no loss.

Tan et al., arXiv 2502.03304: theta <- theta_0 + r (theta - theta_0) with one ratio r a layer, found by ZO and clipped
to [1 - tau, 1 + tau]. Here a layer is an adapted module, A and B together; r is the paper's gamma / |theta - theta_0|.
From r = 1 each of `pairs` iterations scores r +- eps n, n noise of unit variance for each module, and takes
r <- clip(r - rate c n), c = (L+ - L-) / (2 eps), on the rows of the step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worker.types import Layout, Params
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.method import Measured, Probe, finite, left_out
from worker.zo.methods import mezo
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Buffers

Ratios = NDArray[np.float32]  # [modules]


@dataclass(frozen=True)
class State:
    """What DiZO remembers: see `worker.zo.method.State` and `worker.zo.descent.Buffered`."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    start: tuple[Params, ...] = ()  # theta_0, float32 [P]; () until a step has moved it
    buffers: Buffers = ()


@dataclass(frozen=True)
class StartedSpace:
    """MeZO's space, which remembers where it was entered first: a job may start at a parent's adapter."""

    adapter: AdapterSpace

    def start(self) -> tuple[Params, State]:
        return self.adapter.start()[0], State()

    def enter(self, params: Params, state: State) -> tuple[Params, State]:
        return params, state if state.start else replace(state, start=(params,))

    def direction(self, params: Params, state: State, query: int) -> Params:
        return self.adapter.direction(params, mezo.State(step=state.step), query)

    def decay(self, params: Params, factor: float) -> Params:
        return self.adapter.decay(params, factor)


@dataclass(frozen=True)
class Projection:
    """How the ratios are found: after each step whose number + 1 is a multiple of `every`."""

    every: int
    pairs: int
    eps: float
    rate: float
    tau: float


@dataclass(frozen=True)
class Dizo:
    """The descent's own probes in the first phase; where a projection is due, a pair in each further one."""

    descent: Descent[State]
    layout: Layout
    seed: int
    projection: Projection

    @property
    def numbers(self) -> int:
        return 1

    @property
    def replays(self) -> bool:
        return True

    @property
    def most(self) -> int:
        return self.descent.most + 2 * self.projection.pairs

    def init(self) -> tuple[Params, State]:
        return self.descent.init()

    def halved(self, times: int) -> "Dizo":
        return replace(self, descent=self.descent.halved(times))

    def ask(self, params: Params, state: State, heard: Sequence[Measured]) -> list[Probe]:
        if not heard:
            return self.descent.ask(params, state, ())
        moved, after = self._descended(params, state, heard)
        scored = heard[self.descent.most :]
        if not self._due(state, after) or len(scored) == 2 * self.projection.pairs or not _all_finite(scored):
            return []
        ratios = self._ratios(state.step, scored)
        away = self._noise(state.step, len(scored) // 2) * np.float32(self.projection.eps)
        return [Probe(self._projected(moved, after, r)) for r in (ratios + away, ratios - away)]

    def tell(self, params: Params, state: State, heard: Sequence[Measured]) -> tuple[Params, State]:
        moved, after = self._descended(params, state, heard)
        scored = heard[self.descent.most :]
        if not _all_finite(scored) or after.skipped > state.skipped:
            return params, left_out(state)
        if len(scored) != (2 * self.projection.pairs if self._due(state, after) else 0):
            raise ValueError(f"{len(heard)} losses for another number of probes")
        if not scored:
            return moved, after
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large for float32 is left out
            projected = self._projected(moved, after, self._ratios(state.step, scored))
        return (projected, after) if finite(projected) else (params, left_out(state))

    def _descended(self, params: Params, state: State, heard: Sequence[Measured]) -> tuple[Params, State]:
        return self.descent.tell(params, state, heard[: self.descent.most])

    def _due(self, state: State, after: State) -> bool:
        """Whether the step projects: it is its turn, and the descent has moved."""
        return (state.step + 1) % self.projection.every == 0 and after.skipped == state.skipped

    def _ratios(self, step: int, scored: Sequence[Measured]) -> Ratios:
        """The ratios after the pairs `scored` so far, float32 [modules]."""
        p, ratios = self.projection, np.ones(len(self.layout.modules), dtype=np.float32)
        low, high = np.float32(1 - p.tau), np.float32(1 + p.tau)
        for pair in range(len(scored) // 2):
            slope = (scored[2 * pair].loss - scored[2 * pair + 1].loss) / (2 * p.eps)
            # A move past the range ends at its end, whatever it is in float32.
            move = np.float32(min(max(p.rate * slope, -1e30), 1e30))
            ratios = np.clip(ratios - self._noise(step, pair) * move, low, high)
        return ratios

    def _noise(self, step: int, pair: int) -> Ratios:
        return noise.normal(Place(self.seed, Stream.RATIO, step, pair), len(self.layout.modules))

    def _projected(self, moved: Params, after: State, ratios: Ratios) -> Params:
        """theta_0 + r (theta - theta_0), r of each module for its A and B."""
        start = after.start[0]
        away = moved - start
        for i, ratio in enumerate(ratios):
            away[self.layout.offsets[2 * i] : self.layout.offsets[2 * i + 2]] *= ratio
        return start + away


def _all_finite(heard: Sequence[Measured]) -> bool:
    return all(math.isfinite(measured.loss) for measured in heard)
