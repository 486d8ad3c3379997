"""LeZO: each step probes and moves a random share of layers, or of entries. Knows which noise masks are, no loss.

Wang et al., arXiv 2410.09823: g = c z', z' = z on a share of the layers drawn anew, 0 elsewhere. Random entries are
ZO-Bench's sparse gradients (arXiv 2402.11592, section 5). What is kept is not scaled up for what is left out, so that
a probe's radius stays that of each entry. One mask serves all queries of a step, and `every` steps in a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from worker.types import Layout, Params
from worker.zo import noise
from worker.zo.noise import Place, Stream


def kept(density: float, count: int) -> int:
    """How many of `count` are kept, rounded to the nearest."""
    return int(density * count + 0.5)


@dataclass(frozen=True)
class Layers:
    """kept(density, L) of the L `layers`, each a range (first, last + 1) of the layout's modules."""

    layout: Layout
    seed: int
    density: float
    every: int
    layers: tuple[tuple[int, int], ...]

    def shaped(self, z: Params, params: Params, step: int) -> Params:  # noqa: ARG002
        drawn = noise.words(Place(self.seed, Stream.LAYERS, step // self.every), len(self.layers))
        order = np.argsort(drawn, kind="stable")
        for layer in order[kept(self.density, len(self.layers)) :]:
            first, last = self.layers[layer]
            z[self.layout.offsets[2 * first] : self.layout.offsets[2 * last]] = 0
        return z


@dataclass(frozen=True)
class Entries:
    """kept(density, n) of each tensor's n entries."""

    layout: Layout
    seed: int
    density: float
    every: int

    def shaped(self, z: Params, params: Params, step: int) -> Params:  # noqa: ARG002
        place = Place(self.seed, Stream.ENTRIES, step // self.every)
        packed = _entries(place, self.density, self.layout.offsets)
        z *= np.unpackbits(packed, count=len(z))
        return z


@lru_cache(maxsize=16)
def _entries(place: Place, density: float, offsets: tuple[int, ...]) -> NDArray[np.uint8]:
    """The mask over a vector whose tensors begin at `offsets`, its bits packed; a probe and its move share it."""
    return packed_smallest(noise.words(place, offsets[-1]), density, offsets)


def packed_smallest(
    sizes: NDArray[np.uint64] | NDArray[np.float32], density: float, offsets: Sequence[int]
) -> NDArray[np.uint8]:
    """Of each tensor, the kept(density, n) >= 1 entries of the least `sizes` [P], and what equals the largest of them:
    bits packed eight to a byte, uint8 [P / 8, rounded up]."""
    mask = np.zeros(offsets[-1], dtype=np.bool_)
    for begin, end in pairwise(offsets):
        last = kept(density, end - begin) - 1
        mask[begin:end] = sizes[begin:end] <= np.partition(sizes[begin:end], last)[last]
    return np.packbits(mask)
