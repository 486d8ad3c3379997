"""Small learned networks, run in one order of operations on every machine. Knows arrays, no method and no file.

Elementwise float64 with +, -, * and / and sums as trees: no `tanh` of a library, whose last bit belongs to the machine.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.zo.linalg import F64, tree_sum

FLAT: Final = 20.0  # beyond it tanh is 1 in float64
HALVINGS: Final = 3
TERMS: Final = 13  # of the continued fraction
LARGEST_INPUT: Final = 2.0**20


def tanh(x: F64) -> F64:
    """tanh, within 1e-15, by rational functions: Lambert's continued fraction x / (1 + x^2 / (3 + x^2 / (5 + ...))) of
    an eighth of x, which is at most 2.5 in size, and three times tanh 2x = 2 tanh x / (1 + tanh^2 x)."""
    y = np.clip(x, -FLAT, FLAT) / 2**HALVINGS
    square = y * y
    below = np.full_like(y, 2.0 * TERMS + 1)
    for k in range(TERMS - 1, -1, -1):
        below = (2 * k + 1) + square / below
    found: F64 = y / below
    for _ in range(HALVINGS):
        found = 2 * found / (1 + found * found)
    return found


@dataclass(frozen=True)
class Networks:
    """T networks of one hidden layer, one number each: |w2 tanh(w1 x + b1) + b2|, w1 [T, H, I], b1, w2 [T, H], b2 [T].
    They are float32 and taken as float64."""

    w1: NDArray[np.float32]
    b1: NDArray[np.float32]
    w2: NDArray[np.float32]
    b2: NDArray[np.float32]

    def __call__(self, inputs: F64) -> F64:
        """The numbers [T] for inputs [T, I], each of which counts as 2**20 where it is larger in size."""
        x = np.clip(inputs, -LARGEST_INPUT, LARGEST_INPUT)
        hidden = self.b1.astype(np.float64)
        for i in range(x.shape[1]):
            hidden += self.w1[:, :, i].astype(np.float64) * x[:, None, i]
        found: F64 = np.abs(tree_sum(self.w2 * tanh(hidden), 1) + self.b2)
        return found


def normalised(sigma: F64, sizes: F64) -> F64:
    """sigma [T] times what makes sum n sigma^2 = sum n, n being `sizes` [T]: the expected square of the norm of a
    direction of so many entries a tensor stays what it is with all 1. All 1 where all are 0."""
    largest = sigma.max()
    if largest == 0:
        return np.ones_like(sigma)
    unit = sigma / largest
    found: F64 = unit * np.sqrt(tree_sum(sizes, 0) / tree_sum(sizes * unit * unit, 0))
    return found
