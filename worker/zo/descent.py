"""The loop of most methods: probe along random directions, step against the estimate. Knows no kind of direction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np

from worker.types import Params
from worker.zo.estimators import Weighing, clipped
from worker.zo.method import Measured, Probe, State, finite, left_out
from worker.zo.optimizers import Buffers, Optimizer
from worker.zo.schedules import Schedule
from worker.zo.shapes import EVEN, Shape


class Buffered(State, Protocol):
    """The state of a descent, whatever else its space keeps in it."""

    @property
    def buffers(self) -> Buffers:
        """The optimizer's vectors, float32 [P] each."""
        ...


B = TypeVar("B", bound=Buffered)


class Space(Protocol[B]):
    """Where a method looks: how the adapter starts, in which directions it is probed, what changes between windows."""

    def start(self) -> tuple[Params, B]:
        """The adapter before step 0, float32 [P], and its state without buffers."""
        ...

    def enter(self, params: Params, state: B) -> tuple[Params, B]:
        """Params and state as step `state.step` finds them; itself pure, and changes nothing the second time."""
        ...

    def direction(self, params: Params, state: B, query: int) -> Params:
        """Direction z of one query of step `state.step`, float32 [P], its caller's own."""
        ...

    def decay(self, params: Params, factor: float) -> Params:
        """The adapter with its effective update shrunk, for decoupled weight decay."""
        ...


@dataclass(frozen=True)
class Descent(Generic[B]):
    """theta <- (1 - lr wd) theta - lr * optimizer(mean_i c_i z_i), with c_i the estimator's (clipped) weights, as a
    rule projected gradients, and z_i the space's direction in the given shape.

    A step whose losses are not all finite, or whose new params or buffers would not be (a slope of 1e39 is infinite in
    float32, one of 1e20 has an infinite square), leaves params and buffers as they were and is counted.
    """

    space: Space[B]
    estimator: Weighing
    optimizer: Optimizer
    schedule: Schedule
    clip: float | None = None
    weight_decay: float = 0.0
    shape: Shape = EVEN

    @property
    def numbers(self) -> int:
        return 1

    @property
    def replays(self) -> bool:
        return True

    @property
    def most(self) -> int:
        return self.estimator.width

    def init(self) -> tuple[Params, B]:
        params, state = self.space.start()
        return params, replace(state, buffers=tuple(np.zeros_like(params) for _ in range(self.optimizer.buffers)))

    def halved(self, times: int) -> "Descent[B]":
        """The same with its peak rate times 2**-times, which is exact."""
        return replace(self, schedule=replace(self.schedule, peak=self.schedule.peak * 0.5**times))

    def ask(self, params: Params, state: B, heard: Sequence[Measured]) -> list[Probe]:
        """All `most` probes at once, float32 [P] each."""
        if heard:
            return []
        params, state = self.space.enter(params, state)
        probes: list[Probe] = []
        drawn, z = -1, params
        for query, radius in self.estimator.at(state.step).probes:
            if radius == 0:
                probes.append(Probe(params))
                continue
            if query != drawn:
                drawn, z = query, self.direction(params, state, query)
            probes.append(Probe(params + z * np.float32(radius)))
        return probes

    def direction(self, params: Params, state: B, query: int) -> Params:
        """The shaped direction of a query, for params and state as `Space.enter` leaves them."""
        return self.shape.shaped(self.space.direction(params, state, query), params, state.step)

    def tell(self, params: Params, state: B, heard: Sequence[Measured]) -> tuple[Params, B]:
        """Params and state after the step whose probes, in the order asked, were `heard`."""
        losses = [measured.loss for measured in heard]
        slopes = self.estimator.at(state.step).slopes(losses)
        if all(map(math.isfinite, (*losses, *slopes))):
            with np.errstate(over="ignore", invalid="ignore"):  # what is too large for float32 is left out
                moved, after = self._moved(params, state, clipped(slopes, self.clip))
            if finite(moved, *after.buffers):
                return moved, after
        return params, left_out(state)

    def _moved(self, params: Params, state: B, slopes: tuple[float, ...]) -> tuple[Params, B]:
        params, state = self.space.enter(params, state)
        gradient = self._gradient(params, state, slopes)
        direction, buffers = self.optimizer.apply(gradient, state.buffers, state.step - state.skipped - state.back)
        rate = self.schedule(state.step)
        if self.weight_decay:
            params = self.space.decay(params, 1 - rate * self.weight_decay)
        params = params - direction * np.float32(rate)
        return params, replace(state, step=state.step + 1, nonfinite=0, buffers=buffers)

    def _gradient(self, params: Params, state: B, slopes: tuple[float, ...]) -> Params:
        """mean_i c_i z_i, float32 [P], added up in query order."""
        total = self.direction(params, state, 0) * np.float32(slopes[0] / len(slopes))
        for query, slope in enumerate(slopes[1:], start=1):
            total += self.direction(params, state, query) * np.float32(slope / len(slopes))
        return total
