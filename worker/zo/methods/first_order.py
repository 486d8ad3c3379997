"""First-order LoRA: AdamW on the exact gradient of the step's rows. Knows vectors, no loss and no model.

Loshchilov and Hutter, arXiv 1711.05101, algorithm 2, as torch.optim.AdamW has it: theta <- (1 - lr wd) theta
- lr m_hat / (sqrt(v_hat) + 1e-8). A starts as PEFT's, B at 0. The gradient comes from a scorer with autograd and is in
no journal, so a step replays from the point before it and not from its row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from worker.types import GRADIENT, Layout, Params
from worker.zo.linalg import tree_sum
from worker.zo.method import Measured, Probe, finite, left_out
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.optimizers import Adam, Buffers
from worker.zo.schedules import Schedule

SLACK = 1e-6  # as torch.nn.utils.clip_grad_norm_ adds to the norm


@dataclass(frozen=True)
class State:
    """What AdamW remembers: `buffers` are m and v, float32 [P]. See `worker.zo.method.State`."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    buffers: Buffers = ()


@dataclass(frozen=True)
class FirstOrder:
    """A step asks for one probe, the params themselves with their gradient, and moves by AdamW.

    A step whose loss, gradient, new params or new moments are not finite changes nothing and is counted.
    """

    layout: Layout
    seed: int
    optimizer: Adam
    schedule: Schedule
    clip: float | None = None
    weight_decay: float = 0.0

    numbers: int = 1
    replays: bool = False
    most: int = GRADIENT

    def init(self) -> tuple[Params, State]:
        params, _ = AdapterSpace(self.layout, self.seed).start()
        return params, State(buffers=(np.zeros_like(params), np.zeros_like(params)))

    def halved(self, times: int) -> "FirstOrder":
        """The same with its peak rate times 2**-times, which is exact."""
        return replace(self, schedule=replace(self.schedule, peak=self.schedule.peak * 0.5**times))

    def ask(self, params: Params, state: State, heard: Sequence[Measured]) -> list[Probe]:  # noqa: ARG002
        return [] if heard else [Probe(params, gradient=True)]

    def tell(self, params: Params, state: State, heard: Sequence[Measured]) -> tuple[Params, State]:
        if len(heard) != 1:
            raise ValueError(f"{len(heard)} measures for 1 probe")
        gradient = gradient_of(heard[0], params)
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large for float32 is left out
            if math.isfinite(heard[0].loss) and finite(gradient):
                gradient = bounded(gradient, self.clip)
                told = state.step - state.skipped - state.back
                direction, buffers = self.optimizer.apply(gradient, state.buffers, told)
                rate = self.schedule(state.step)
                moved = params * np.float32(1 - rate * self.weight_decay) - direction * np.float32(rate)
                if finite(moved, *buffers):
                    return moved, replace(state, step=state.step + 1, nonfinite=0, buffers=buffers)
        return params, left_out(state)


def gradient_of(measured: Measured, params: Params) -> Params:
    """The gradient that was asked for. Raises ValueError where it is missing or of another size than `params`."""
    gradient = measured.gradient
    if gradient is None or gradient.shape != params.shape:
        raise ValueError("the step's gradient was not measured: it is not in the journal")
    return gradient


def bounded(gradient: Params, clip: float | None) -> Params:
    """The gradient with a norm of at most `clip`, where that is given: scaled as torch's clip_grad_norm_ does."""
    if clip is None:
        return gradient
    wide = gradient.astype(np.float64)
    norm = math.sqrt(float(tree_sum(wide * wide, 0)))
    return gradient * np.float32(clip / (norm + SLACK)) if norm + SLACK > clip else gradient
