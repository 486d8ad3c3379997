"""A toy of two phases: a step that looks again before it moves. Knows the noise, no loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from worker.types import Layout, Params
from worker.zo import noise
from worker.zo.method import Measured, Probe, left_out
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream


@dataclass(frozen=True)
class State:
    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    moves: tuple[float, ...] = (0.0, 0.0, 0.0)  # steps that stayed, went down the slope, went up


@dataclass(frozen=True)
class Conservative:
    """theta +- eps z, then theta, theta - rate c z and theta + rate c z: it goes where the loss was least (the first of
    equals). Where the pair has no slope, there is nothing to look at again and the step ends after two probes."""

    layout: Layout
    seed: int
    eps: float
    rate: float
    most: int = 5
    numbers: int = 1
    replays: bool = True

    def init(self) -> tuple[Params, State]:
        return AdapterSpace(self.layout, self.seed).start()[0], State()

    def ask(self, params: Params, state: State, heard: Sequence[Measured]) -> list[Probe]:
        if not heard:
            z = self._direction(state)
            return [Probe(params + z * np.float32(radius)) for radius in (self.eps, -self.eps)]
        return [Probe(x) for x in self._places(params, state, heard)] if len(heard) == 2 and self._slope(heard) else []

    def tell(self, params: Params, state: State, heard: Sequence[Measured]) -> tuple[Params, State]:
        looked = [m.loss for m in heard[2:]]
        if len(looked) != (3 if self._slope(heard) else 0):
            raise ValueError(f"{len(heard)} losses for another number of probes")
        if not all(math.isfinite(m.loss) for m in heard):
            return params, left_out(state)
        least = looked.index(min(looked)) if looked else 0
        moves = tuple(n + (i == least) for i, n in enumerate(state.moves))
        there = self._places(params, state, heard)[least]
        return there, replace(state, step=state.step + 1, nonfinite=0, moves=moves)

    def _direction(self, state: State) -> Params:
        return noise.normal(Place(self.seed, Stream.PROBE, state.step), self.layout.size)

    def _slope(self, heard: Sequence[Measured]) -> float:
        """0 where there is none to be had."""
        slope = (heard[0].loss - heard[1].loss) / (2 * self.eps)
        return slope if math.isfinite(slope) else 0.0

    def _places(self, params: Params, state: State, heard: Sequence[Measured]) -> list[Params]:
        away = self._direction(state) * np.float32(self.rate * self._slope(heard))
        return [params, params - away, params + away]
