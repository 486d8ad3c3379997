"""HiZOO: directions scaled by an estimate of the diagonal of the Hessian. Knows entries of an adapter, no loss.

Zhao et al., arXiv 2402.15173: L0 at theta, L+ and L- at theta +- eps d with d = H^-1/2 z; theta <- theta - lr c d with
c = (L+ - L-) / 2 eps; H <- (1 - a) H + a |L+ + L- - 2 L0| / (2 eps^2) * H z^2. H starts at 1. The move is along the d
that was measured. On a quadratic of diagonal D over d entries H settles at (1 + d/2) D in the mean: D up to a factor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from worker.types import Params
from worker.zo.descent import Descent
from worker.zo.method import Measured, Probe, left_out
from worker.zo.methods import mezo

# H's range. Without curvature it would shrink to 0, and directions grow without end; with losses that are out of all
# proportion it would grow until no probe moves.
LEAST: Final = 2.0**-10
MOST: Final = 2.0**20


@dataclass(frozen=True)
class Curved(mezo.AdapterSpace):
    """All P parameters; `state.buffers` is (H,), float32 [P]."""

    def direction(self, params: Params, state: mezo.State, query: int) -> Params:
        z = super().direction(params, state, query)
        z /= np.sqrt(state.buffers[0])
        return z


@dataclass(frozen=True)
class Hizoo:
    """Centre, then a pair along the scaled direction. `descent` is two-point with one query, in `Curved`, and keeps
    no buffers of its own. With a shape, H is the curvature in the shaped coordinates."""

    descent: Descent[mezo.State]
    smoothing: float  # a
    most: int = 3
    numbers: int = 1
    replays: bool = True

    def init(self) -> tuple[Params, mezo.State]:
        params, state = self.descent.init()
        return params, replace(state, buffers=(np.ones_like(params),))

    def halved(self, times: int) -> "Hizoo":
        return replace(self, descent=self.descent.halved(times))

    def ask(self, params: Params, state: mezo.State, heard: Sequence[Measured]) -> list[Probe]:
        return [] if heard else [Probe(params), *self.descent.ask(params, state, ())]

    def tell(self, params: Params, state: mezo.State, heard: Sequence[Measured]) -> tuple[Params, mezo.State]:
        moved, after = self.descent.tell(params, state, heard[1:])
        factor = self._factor([m.loss for m in heard])
        if after.nonfinite or not math.isfinite(factor):
            return params, left_out(state)
        return moved, replace(after, buffers=(self._curvature(params, state, factor),))

    def _factor(self, losses: list[float]) -> float:
        """a |L+ + L- - 2 L0| / (2 eps^2)."""
        (_, eps), (centre, up, down) = self.descent.estimator.at(0).probes[0], losses
        return self.smoothing * (abs(up + down - 2 * centre) / (2 * eps * eps))

    def _curvature(self, params: Params, state: mezo.State, factor: float) -> Params:
        """H after the step, float32 [P]; H z^2 is (H d)^2."""
        h = state.buffers[0]
        scaled = h * self.descent.space.direction(params, state, 0)
        with np.errstate(over="ignore"):  # what is too large is MOST
            grown = h * np.float32(1 - self.smoothing) + scaled * scaled * np.float32(factor)
        return np.clip(grown, np.float32(LEAST), np.float32(MOST))
