"""MeZO-SVRG: a minibatch's estimate corrected by what the same rows say at an anchor. Knows a descent, no loss.

Gautam et al., arXiv 2404.08080, algorithm 2. Every `every` steps the anchor becomes theta, its estimate
G = mean_j C_j Z_j is taken on the anchor rows, and theta <- theta - factor lr G. At any other step
    g = mean_i (c_i(theta) - c_i(anchor)) z_i + G,  theta <- theta - lr g,
both slopes along the same z_i on the step's minibatch. G is kept as the scalars C_j: Z_j is noise and drawn again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from worker.types import Params
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator, clipped, told
from worker.zo.method import Measured, Probe, finite, left_out
from worker.zo.methods import mezo
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.optimizers import Buffers


@dataclass(frozen=True)
class State:
    """What MeZO-SVRG remembers: see `worker.zo.method.State` and `worker.zo.descent.Buffered`."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    anchor: tuple[Params, ...] = ()  # float32 [P]; () before the first
    taken: int = 0  # the step that it was taken at, whose noise Z is
    slopes: tuple[float, ...] = ()  # C
    buffers: Buffers = ()


@dataclass(frozen=True)
class AnchoredSpace:
    """MeZO's space, with this state."""

    adapter: AdapterSpace

    def start(self) -> tuple[Params, State]:
        return self.adapter.start()[0], State()

    def enter(self, params: Params, state: State) -> tuple[Params, State]:
        return params, state

    def direction(self, params: Params, state: State, query: int) -> Params:
        return self.adapter.direction(params, mezo.State(step=state.step), query)

    def decay(self, params: Params, factor: float) -> Params:
        return self.adapter.decay(params, factor)


class Anchoring(NamedTuple):
    """The anchor's estimate: on the first `rows` rows of the job's walk, by `queries` pairs, at each step whose number
    is a multiple of `every`; the step against it is `factor` times the rate."""

    rows: int
    every: int
    queries: int
    factor: float


@dataclass(frozen=True, kw_only=True)
class Svrg(Descent[State]):
    """`estimator` is two-point. A step whose losses are not finite leaves the anchor as it was, and waits for the next
    multiple of `every`; without any anchor the next step takes one."""

    anchoring: Anchoring

    @property
    def most(self) -> int:
        return max(2 * self.estimator.width, 2 * self.anchoring.queries)

    def ask(self, params: Params, state: State, heard: Sequence[Measured]) -> list[Probe]:
        """At a refresh the pairs about theta on the anchor rows; else the pairs about theta, then those about the
        anchor."""
        if heard:
            return []
        if self._due(state):
            rows = range(self.anchoring.rows)
            return [replace(probe, rows=rows) for probe in self._anchoring().ask(params, state, ())]
        both = params, state.anchor[0]
        return [Probe(x.params) for centre in both for x in Descent.ask(self, centre, state, ())]

    def tell(self, params: Params, state: State, heard: Sequence[Measured]) -> tuple[Params, State]:
        losses, due = [m.loss for m in heard], self._due(state)
        slopes = self._anchoring().estimator.at(0).slopes(losses) if due else self._apart(losses)
        if not all(map(math.isfinite, (*losses, *slopes))):
            return params, left_out(state)
        slopes, by, at = clipped(slopes, self.clip), self, state
        if due:
            factor, schedule = self.anchoring.factor, self.schedule
            by = replace(self, schedule=replace(schedule, peak=schedule.peak * factor))
            at, slopes = replace(state, anchor=(params,), taken=state.step, slopes=slopes), ()
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large for float32 is left out
            moved, after = by._moved(params, at, slopes)
        return (moved, after) if finite(moved) else (params, left_out(state))

    def _due(self, state: State) -> bool:
        return not state.anchor or state.step % self.anchoring.every == 0

    def _anchoring(self) -> Descent[State]:
        _, eps = self.estimator.at(0).probes[0]
        pairs = Estimator("two_point", eps, self.anchoring.queries)
        return Descent(self.space, pairs, self.optimizer, self.schedule, shape=self.shape)

    def _apart(self, losses: Sequence[float]) -> tuple[float, ...]:
        """c_i(theta) - c_i(anchor)."""
        width, by = self.estimator.width, self.estimator.at(0)
        values = told(losses, 2 * width)
        here, there = by.slopes(values[:width]), by.slopes(values[width:])
        return tuple(x - y for x, y in zip(here, there, strict=True))

    def _gradient(self, params: Params, state: State, slopes: tuple[float, ...]) -> Params:
        """g, float32 [P]: the minibatch's part, where it has one, then G, added up in query order."""
        total = super()._gradient(params, state, slopes) if slopes else np.zeros_like(params)
        return total + super()._gradient(params, replace(state, step=state.taken), state.slopes)
