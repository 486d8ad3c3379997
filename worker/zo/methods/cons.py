"""ZO-SGD-Cons: a step that looks again before it moves. Knows a descent, no noise and no loss.

ZO-Bench (Zhang et al., arXiv 2402.11592): with g as a descent estimates it, go to whichever of theta, theta - lr g and
theta + lr g has the least loss on the step's rows; the first of equals, so that a tie keeps theta.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic

from worker.types import Params
from worker.zo.descent import B, Descent
from worker.zo.method import Measured, Probe, left_out


@dataclass(frozen=True)
class Conservative(Generic[B]):
    """A descent's probes first, then theta and the two places. `descent` must keep nothing between steps: a buffer
    would take in what was not followed.

    The way back is the descent's own step for losses of the other sign, which negates slopes exactly. Where the first
    phase, or the place it leads to, is not finite, there is nothing to look at again: the step ends there.
    """

    descent: Descent[B]
    numbers: int = 1
    replays: bool = True

    @property
    def most(self) -> int:
        return self.descent.most + 3

    def init(self) -> tuple[Params, B]:
        return self.descent.init()

    def halved(self, times: int) -> "Conservative[B]":
        return replace(self, descent=self.descent.halved(times))

    def ask(self, params: Params, state: B, heard: Sequence[Measured]) -> list[Probe]:
        if not heard:
            return self.descent.ask(params, state, ())
        if len(heard) > self.descent.most:
            return []
        return [Probe(place) for place, _ in self._places(params, state, heard)]

    def tell(self, params: Params, state: B, heard: Sequence[Measured]) -> tuple[Params, B]:
        first = self.descent.most
        places = self._places(params, state, heard[:first])
        if len(heard) != self.most and (places or len(heard) != first):
            raise ValueError(f"{len(heard)} losses for another number of probes")
        losses = [m.loss for m in heard[first:]]
        if not places or not all(map(math.isfinite, losses)):
            return params, left_out(state)
        return places[losses.index(min(losses))]

    def _places(self, params: Params, state: B, heard: Sequence[Measured]) -> list[tuple[Params, B]]:
        """theta, theta - lr g and theta + lr g, each with the state of who goes there; nothing where one is not
        finite."""
        there, after = self.descent.tell(params, state, heard)
        back, behind = self.descent.tell(params, state, [Measured(-m.loss) for m in heard])
        if after.nonfinite or behind.nonfinite:
            return []
        here, _ = self.descent.space.enter(params, state)
        return [(here, after), (there, after), (back, behind)]
