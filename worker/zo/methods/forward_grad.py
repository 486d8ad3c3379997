"""Forward gradient: the loss's derivative along a random direction, times that direction. Knows the noise, no loss.

Baydin et al., arXiv 2202.08587, algorithm 1: v ~ N(0, I), j = dL/dv by one forward-mode pass, g = j v, whose mean is
the gradient. MeZO without its radius: no second evaluation, no error of order eps squared. Its row is (L, j) for each
direction, so it replays as MeZO does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from worker.types import TANGENT, Layout, Params
from worker.zo import noise
from worker.zo.estimators import clipped
from worker.zo.method import Measured, Probe, left_out
from worker.zo.methods.mezo import AdapterSpace, State
from worker.zo.moving import Rule, counted, kept
from worker.zo.noise import Place, Stream
from worker.zo.shapes import EVEN, Shape


@dataclass(frozen=True)
class ForwardGrad:
    """theta <- (1 - lr wd) theta - lr * optimizer(mean_i j_i v_i), j_i limited to [-clip, clip], v_i in the given
    shape. A step that heard or leads to anything not finite is left out."""

    layout: Layout
    seed: int
    rule: Rule
    queries: int = 1
    clip: float | None = None
    shape: Shape = EVEN

    @property
    def most(self) -> int:
        return TANGENT * self.queries

    @property
    def numbers(self) -> int:
        return 2

    @property
    def replays(self) -> bool:
        return True

    def init(self) -> tuple[Params, State]:
        params, state = AdapterSpace(self.layout, self.seed).start()
        return params, replace(state, buffers=self.rule.buffers(params))

    def halved(self, times: int) -> "ForwardGrad":
        return replace(self, rule=self.rule.halved(times))

    def ask(self, params: Params, state: State, heard: Sequence[Measured]) -> list[Probe]:
        if heard:
            return []
        return [Probe(params, tangent=self.direction(params, state, query)) for query in range(self.queries)]

    def tell(self, params: Params, state: State, heard: Sequence[Measured]) -> tuple[Params, State]:
        counted(heard, self.queries)
        slopes = [measured.slope for measured in heard if measured.slope is not None]
        if len(slopes) != len(heard):
            raise ValueError("a slope along the tangent was not measured")
        if not all(map(math.isfinite, (*slopes, *(measured.loss for measured in heard)))):
            return params, left_out(state)
        total = np.zeros_like(params)
        with np.errstate(over="ignore", invalid="ignore"):
            for query, slope in enumerate(clipped(tuple(slopes), self.clip)):
                total += self.direction(params, state, query) * np.float32(slope / len(slopes))
        return kept(params, state, *self.rule.moved(params, state, total))

    def direction(self, params: Params, state: State, query: int) -> Params:
        """v of a query, of unit variance before it is shaped, float32 [P]."""
        v = noise.normal(Place(self.seed, Stream.TANGENT, state.step, query), self.layout.size)
        return self.shape.shaped(v, params, state.step)
