"""The one loop of all methods: probe along random directions, step against the estimate. Knows no kind of direction."""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from worker.types import Losses, Params
from worker.zo.estimators import Estimator, clipped
from worker.zo.method import State
from worker.zo.optimizers import Optimizer
from worker.zo.schedules import Schedule


class Space(Protocol):
    """Where a method looks: how the adapter starts, in which directions it is probed, what changes between windows."""

    def start(self) -> Params:
        """The adapter before step 0, float32 [P]."""
        ...

    def enter(self, params: Params, state: State) -> tuple[Params, State]:
        """Params and state as step `state.step` finds them; itself pure, and changes nothing the second time."""
        ...

    def direction(self, state: State, query: int) -> Params:
        """Direction z of one query of step `state.step`, float32 [P]."""
        ...

    def decay(self, params: Params, factor: float) -> Params:
        """The adapter with its effective update shrunk, for decoupled weight decay."""
        ...


@dataclass(frozen=True)
class Descent:
    """theta <- (1 - lr wd) theta - lr * optimizer(mean_i c_i z_i), with c_i the (clipped) projected gradients.

    A step whose losses are not all finite leaves params and buffers as they were and is counted.
    """

    space: Space
    estimator: Estimator
    optimizer: Optimizer
    schedule: Schedule
    clip: float | None = None
    weight_decay: float = 0.0

    @property
    def width(self) -> int:
        return self.estimator.width

    def init(self) -> tuple[Params, State]:
        params = self.space.start()
        return params, State(buffers=tuple(np.zeros_like(params) for _ in range(self.optimizer.buffers)))

    def ask(self, params: Params, state: State) -> list[Params]:
        """Probes [width], each a new float32 [P] vector."""
        params, state = self.space.enter(params, state)
        probes: list[Params] = []
        drawn, z = -1, params
        for query, radius in self.estimator.probes:
            if radius == 0:
                probes.append(params)
                continue
            if query != drawn:
                drawn, z = query, self.space.direction(state, query)
            probes.append(params + z * np.float32(radius))
        return probes

    def tell(self, params: Params, state: State, losses: Losses) -> tuple[Params, State]:
        """Params and state after the step whose probes had these losses, float64 [width], in the order asked."""
        slopes = self.estimator.slopes(losses)
        if not all(math.isfinite(float(x)) for x in losses) or not all(map(math.isfinite, slopes)):
            return params, replace(state, step=state.step + 1, skipped=state.skipped + 1, nonfinite=state.nonfinite + 1)
        params, state = self.space.enter(params, state)
        slopes = clipped(slopes, self.clip)
        gradient = self._gradient(state, slopes)
        direction, buffers = self.optimizer.apply(gradient, state.buffers, state.step - state.skipped)
        rate = self.schedule(state.step)
        if self.weight_decay:
            params = self.space.decay(params, 1 - rate * self.weight_decay)
        params = params - direction * np.float32(rate)
        return params, replace(state, step=state.step + 1, nonfinite=0, buffers=buffers)

    def _gradient(self, state: State, slopes: tuple[float, ...]) -> Params:
        """mean_i c_i z_i, float32 [P], added up in query order."""
        total = self.space.direction(state, 0) * np.float32(slopes[0] / len(slopes))
        for query, slope in enumerate(slopes[1:], start=1):
            total += self.space.direction(state, query) * np.float32(slope / len(slopes))
        return total
