"""Block-wise MeZO: each step probes and moves one block of modules. Knows a layout, no noise and no loss.

ZO-Bench (arXiv 2402.11592, section 5, "block-wise ZO fine-tuning"): the variance of an estimate grows with the number
of parameters probed together, so they are taken in turn.
"""

from dataclasses import dataclass

from worker.types import Layout, Params


@dataclass(frozen=True)
class Blocks:
    """Of M modules in model order, those from b M / count to (b + 1) M / count, rounded down, where b = step mod count:
    blocks of one size, or of two that differ by one module. `count` is at most M."""

    layout: Layout
    count: int

    def shaped(self, z: Params, params: Params, step: int) -> Params:  # noqa: ARG002
        block, modules = step % self.count, len(self.layout.modules)
        first, last = block * modules // self.count, (block + 1) * modules // self.count
        z[: self.layout.offsets[2 * first]] = 0
        z[self.layout.offsets[2 * last] :] = 0
        return z
