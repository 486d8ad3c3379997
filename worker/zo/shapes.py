"""A factor for each entry of a direction: which part of an adapter moves, and how far. Knows no noise and no loss.

It is multiplied in one place, for probe and move alike, so a slope is measured along what is then moved.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from worker.types import Layout, Params


class Shape(Protocol):
    """shaped(z, params, step) -> the direction, float32 [P]; pure, elementwise, and free to write into `z`."""

    def shaped(self, z: Params, params: Params, step: int) -> Params: ...


@dataclass(frozen=True)
class Even:
    """Every entry alike."""

    def shaped(self, z: Params, params: Params, step: int) -> Params:  # noqa: ARG002
        return z


EVEN: Final = Even()


@dataclass(frozen=True)
class Halves:
    """A's entries times `a`, and times 0 before step `since`; B's as they are. Most of the curvature that a probe of
    both sees is the product of A's noise with B's; with `a` 0 A stays as it began."""

    layout: Layout
    a: float
    since: int = 0

    def shaped(self, z: Params, params: Params, step: int) -> Params:  # noqa: ARG002
        factor = np.float32(self.a if step >= self.since else 0)
        for _, a, _ in self.layout.pairs(z):
            a *= factor
        return z


@dataclass(frozen=True)
class Both:
    """One factor after the other."""

    first: Shape
    second: Shape

    def shaped(self, z: Params, params: Params, step: int) -> Params:
        return self.second.shaped(self.first.shaped(z, params, step), params, step)
