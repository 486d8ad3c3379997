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
from worker.zo.moving import Rule, counted, gradient_of, kept
from worker.zo.optimizers import Buffers

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
    """A step asks for one probe, the params themselves with their gradient, and moves by `rule`; `clip` bounds the
    gradient's norm. A step whose loss, gradient, new params or new moments are not finite is left out."""

    layout: Layout
    seed: int
    rule: Rule
    clip: float | None = None

    @property
    def most(self) -> int:
        return GRADIENT

    @property
    def numbers(self) -> int:
        return 1

    @property
    def replays(self) -> bool:
        return False

    def init(self) -> tuple[Params, State]:
        params, _ = AdapterSpace(self.layout, self.seed).start()
        return params, State(buffers=self.rule.buffers(params))

    def halved(self, times: int) -> "FirstOrder":
        return replace(self, rule=self.rule.halved(times))

    def ask(self, params: Params, state: State, heard: Sequence[Measured]) -> list[Probe]:  # noqa: ARG002
        return [] if heard else [Probe(params, gradient=True)]

    def tell(self, params: Params, state: State, heard: Sequence[Measured]) -> tuple[Params, State]:
        counted(heard, 1)
        gradient = gradient_of(heard[0], params)
        if not (math.isfinite(heard[0].loss) and finite(gradient)):
            return params, left_out(state)
        return kept(params, state, *self.rule.moved(params, state, bounded(gradient, self.clip)))


def bounded(gradient: Params, clip: float | None) -> Params:
    """The gradient with a norm of at most `clip`, where that is given: scaled as torch's clip_grad_norm_ does."""
    if clip is None:
        return gradient
    wide = gradient.astype(np.float64)
    norm = math.sqrt(float(tree_sum(wide * wide, 0)))
    return gradient * np.float32(clip / (norm + SLACK)) if norm + SLACK > clip else gradient
