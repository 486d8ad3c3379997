"""Random search: the best perturbation of the start that was seen. Knows the noise, no loss: what others must beat.

After RandOpt (Gan and Isola, arXiv 2603.12228), without its vote and with one radius: each step scores the incumbent
and `candidates` fresh theta0 + r z_i on the same rows, and keeps the least loss, the incumbent where equal. theta0 is
what the run began with and the first incumbent. What is remembered is where the incumbent came from, two integers, and
its radius: theta0 is theta - r z again, to float32's rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from worker.types import Params
from worker.zo.method import Measured, Probe, finite, left_out
from worker.zo.methods import mezo
from worker.zo.schedules import Schedule
from worker.zo.shapes import EVEN, Shape


@dataclass(frozen=True)
class State:
    """What random search remembers: see `worker.zo.method.State`."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    found: tuple[int, int] = (0, 0)  # step and candidate that the incumbent came from
    radius: float = 0.0  # and how far from the start it is; 0: it is the start


@dataclass(frozen=True)
class RandomSearch:
    """`schedule` is the radius r of each step's candidates."""

    space: mezo.AdapterSpace
    candidates: int
    schedule: Schedule
    shape: Shape = EVEN
    numbers: int = 1
    replays: bool = True

    @property
    def most(self) -> int:
        return self.candidates + 1

    def init(self) -> tuple[Params, State]:
        return self.space.start()[0], State()

    def halved(self, times: int) -> "RandomSearch":
        """The same that looks half as far from the start."""
        return replace(self, schedule=replace(self.schedule, peak=self.schedule.peak * 0.5**times))

    def ask(self, params: Params, state: State, heard: Sequence[Measured]) -> list[Probe]:
        if heard:
            return []
        start, radius = self._start(params, state), np.float32(self.schedule(state.step))
        candidates = (self._direction(params, state.step, i) for i in range(self.candidates))
        return [Probe(params), *(Probe(start + z * radius) for z in candidates)]

    def tell(self, params: Params, state: State, heard: Sequence[Measured]) -> tuple[Params, State]:
        losses = [m.loss for m in heard]
        if len(losses) != self.most:
            raise ValueError(f"{len(losses)} losses for {self.most} probes")
        if not all(map(math.isfinite, losses)):
            return params, left_out(state)
        best = losses.index(min(losses)) - 1
        after = replace(state, step=state.step + 1, nonfinite=0)
        if best < 0:
            return params, after
        radius = self.schedule(state.step)
        moved = self._start(params, state) + self._direction(params, state.step, best) * np.float32(radius)
        if not finite(moved):
            return params, left_out(state)
        return moved, replace(after, found=(state.step, best), radius=radius)

    def _start(self, params: Params, state: State) -> Params:
        """theta0, from the incumbent and where that came from."""
        if not state.radius:
            return params
        return params - self._direction(params, *state.found) * np.float32(state.radius)

    def _direction(self, params: Params, step: int, query: int) -> Params:
        return self.shape.shaped(self.space.direction(params, mezo.State(step=step), query), params, step)
