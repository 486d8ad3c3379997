"""From a gradient, exact or estimated, to the next params. Knows optimizers, no noise and no loss."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from worker.types import Params
from worker.zo.descent import Buffered
from worker.zo.method import Measured, finite, left_out
from worker.zo.optimizers import Buffers, Optimizer
from worker.zo.schedules import Schedule

B = TypeVar("B", bound=Buffered)


@dataclass(frozen=True)
class Rule:
    """theta <- (1 - lr wd) theta - lr * optimizer(g): the decay is decoupled (arXiv 1711.05101)."""

    optimizer: Optimizer
    schedule: Schedule
    weight_decay: float = 0.0

    def buffers(self, params: Params) -> Buffers:
        """The optimizer's, before the first step."""
        return tuple(np.zeros_like(params) for _ in range(self.optimizer.buffers))

    def halved(self, times: int) -> "Rule":
        """The same with its peak rate times 2**-times, which is exact."""
        return replace(self, schedule=self.schedule.halved(times))

    def moved(self, params: Params, state: B, gradient: Params) -> tuple[Params, Buffers]:
        """Params and buffers after a step along `gradient`, finite or not: `kept` asks. `params` may be a part of the
        adapter, whose buffers are the state's."""
        told = state.step - state.skipped - state.back
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large for float32 is left out
            direction, buffers = self.optimizer.apply(gradient, state.buffers, told)
            rate = self.schedule(state.step)
            shrunk = params * np.float32(1 - rate * self.weight_decay) if self.weight_decay else params
            return shrunk - direction * np.float32(rate), buffers


def kept(params: Params, state: B, moved: Params, buffers: Buffers) -> tuple[Params, B]:
    """The step taken, or left out where it would lead to anything not finite."""
    if not finite(moved, *buffers):
        return params, left_out(state)
    return moved, replace(state, step=state.step + 1, nonfinite=0, buffers=buffers)


def gradient_of(measured: Measured, params: Params) -> Params:
    """The gradient that was asked for. Raises ValueError where it is missing or of another size than `params`."""
    gradient = measured.gradient
    if gradient is None or gradient.shape != params.shape:
        raise ValueError("the step's gradient was not measured: it is in no journal")
    return gradient


def counted(heard: Sequence[Measured], asked: int) -> None:
    """Raises ValueError for measures that are not as many as were asked."""
    if len(heard) != asked:
        raise ValueError(f"{len(heard)} measures for {asked} probes")
