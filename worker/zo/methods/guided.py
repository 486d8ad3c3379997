"""MeZO-GV and MeZO-Greedy: a pool of directions is tried, then one that it points to. Knows a descent and no loss.

Jin et al., arXiv 2601.04710: n probes theta + eps z_i; `contrast` (MeZO-GV) takes z = mean of the z_i of the n // 2
least losses minus the mean of the others, `best` (MeZO-Greedy) the z_i of the least; then c = (L(theta + eps z) -
L(theta - eps z)) / 2 eps and theta <- theta - lr c z. The earlier of equal losses counts as less.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal

import numpy as np

from worker.types import Params
from worker.zo.descent import B, Descent, Space
from worker.zo.method import Measured, Probe, left_out

Pick = Literal["contrast", "best"]


@dataclass(frozen=True)
class Along(Generic[B]):
    """One direction of a space: those of the step's pool by their weights."""

    space: Space[B]
    weights: tuple[float, ...]

    def start(self) -> tuple[Params, B]:
        return self.space.start()

    def enter(self, params: Params, state: B) -> tuple[Params, B]:
        return self.space.enter(params, state)

    def direction(self, params: Params, state: B, query: int) -> Params:  # noqa: ARG002
        total = np.zeros_like(params)
        for i, weight in enumerate(self.weights):
            if weight:
                total += self.space.direction(params, state, i) * np.float32(weight)
        return total

    def decay(self, params: Params, factor: float) -> Params:
        return self.space.decay(params, factor)


@dataclass(frozen=True)
class Guided(Generic[B]):
    """`descent` is two-point with one query; its space's directions 0 to pool - 1 are the pool. Where a loss of the
    pool is not finite, no direction follows, and the step ends there."""

    descent: Descent[B]
    pool: int
    pick: Pick = "contrast"
    numbers: int = 1
    replays: bool = True

    @property
    def most(self) -> int:
        return self.pool + 2

    def init(self) -> tuple[Params, B]:
        return self.descent.init()

    def halved(self, times: int) -> "Guided[B]":
        return replace(self, descent=self.descent.halved(times))

    def ask(self, params: Params, state: B, heard: Sequence[Measured]) -> list[Probe]:
        if not heard:
            entered, opened = self.descent.space.enter(params, state)
            _, radius = self.descent.estimator.at(state.step).probes[0]
            pool = (self.descent.direction(entered, opened, i) for i in range(self.pool))
            return [Probe(entered + z * np.float32(radius)) for z in pool]
        along = self._along(heard) if len(heard) == self.pool else None
        return [] if along is None else along.ask(params, state, ())

    def tell(self, params: Params, state: B, heard: Sequence[Measured]) -> tuple[Params, B]:
        along = self._along(heard[: self.pool])
        if len(heard) != self.most and (along is not None or len(heard) != self.pool):
            raise ValueError(f"{len(heard)} losses for another number of probes")
        return (params, left_out(state)) if along is None else along.tell(params, state, heard[self.pool :])

    def _along(self, heard: Sequence[Measured]) -> Descent[B] | None:
        """The descent along what the pool's losses point to; None where they are not finite."""
        losses = [m.loss for m in heard]
        if not all(map(math.isfinite, losses)):
            return None
        return replace(self.descent, space=Along(self.descent.space, weights(losses, self.pick)))


def weights(losses: Sequence[float], pick: Pick) -> tuple[float, ...]:
    """What each direction of a pool counts: with `contrast` 1 / (n // 2) the n // 2 of the least losses and
    -1 / (n - n // 2) the others, with `best` 1 the least and 0 the others."""
    order = sorted(range(len(losses)), key=losses.__getitem__)  # stable: the earlier of equals first
    top = 1 if pick == "best" else len(losses) // 2
    less = 0.0 if pick == "best" else -1 / (len(losses) - top)
    counts = [less] * len(losses)
    for i in order[:top]:
        counts[i] = 1 / top
    return tuple(counts)
