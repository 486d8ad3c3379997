"""Block-wise MeZO: one block of modules is probed and moved a step, or each by itself before any moves. Knows a layout,
no loss.

ZO-Bench (arXiv 2402.11592, section 5, "block-wise ZO fine-tuning"): the variance of an estimate grows with the number
of parameters probed together, so they are taken in turn.
"""

from dataclasses import dataclass, replace

from worker.types import Layout, Params
from worker.zo.descent import Descent
from worker.zo.methods.mezo import AdapterSpace, State


def kept(z: Params, layout: Layout, block: int, count: int) -> Params:
    """`z`, 0 outside of `block`: of M modules in model order, those from block M / count to (block + 1) M / count,
    rounded down. So blocks have one size, or two that differ by one module. `count` is at most M. Written into `z`."""
    modules = len(layout.modules)
    first, last = block * modules // count, (block + 1) * modules // count
    z[: layout.offsets[2 * first]] = 0
    z[layout.offsets[2 * last] :] = 0
    return z


@dataclass(frozen=True)
class Blocks:
    """One of `count` blocks a step, in turn."""

    layout: Layout
    count: int

    def shaped(self, z: Params, params: Params, step: int) -> Params:  # noqa: ARG002
        return kept(z, self.layout, step % self.count, self.count)


@dataclass(frozen=True)
class EachSpace:
    """All of them a step: query i has its noise in block i mod `count` alone."""

    inner: AdapterSpace
    count: int

    def start(self) -> tuple[Params, State]:
        return self.inner.start()

    def enter(self, params: Params, state: State) -> tuple[Params, State]:
        return self.inner.enter(params, state)

    def direction(self, params: Params, state: State, query: int) -> Params:
        return kept(self.inner.direction(params, state, query), self.inner.layout, query % self.count, self.count)

    def decay(self, params: Params, factor: float) -> Params:
        return self.inner.decay(params, factor)


def summed(descent: Descent[State], count: int) -> Descent[State]:
    """`descent` moves by the mean of its directions, as many of each of `count` blocks: this one by the sum over blocks
    of each block's mean. Weight decay, which is of the rate, stays what it was."""
    schedule = replace(descent.schedule, peak=descent.schedule.peak * count)
    return replace(descent, schedule=schedule, weight_decay=descent.weight_decay / count)
