"""Fisher information, squared gradients and what they say of tensors. Knows gradients of rows, no engine and no file.

The empirical Fisher information of an entry is the mean over rows of its squared derivative of the row's own loss. The
squared gradient of a tensor is the product of the mean gradients of two halves of the rows: the square of one mean has
the noise of the rows in it, the product has none in expectation. It is the mean of that product over every way to halve
n rows, which is (|sum g|^2 - sum |g|^2) / (n (n - 1)): rows may be sorted by what they teach.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.profiling.landscape import Landscape
from worker.types import Layout, Params

F64 = NDArray[np.float64]
POWERS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Measures:
    """`fisher` of each entry [P]; of each tensor its squared gradient (by halves of the rows: it may be below 0) and
    the `trace` of its Fisher information [T]. float64."""

    fisher: F64
    squared: F64
    trace: F64
    rows: int


@dataclass(frozen=True)
class Bound:
    """How much more a step could descend with other variances of the tensors' noise, where curvature is the Fisher
    information and every step has its best rate: in this model that goes as sum f |g|^2 / sum f tr F, f the variances.
    `best` is with all noise in the tensor number `tensor`: no choice of f is above it. `powers` are
    (p, gain) with f = (|g|^2 / tr F)^p. All against f = 1."""

    best: float
    tensor: int
    powers: tuple[tuple[float, float], ...]


def measure(landscape: Landscape, layout: Layout, params: Params) -> Measures:
    """Of every row alone at `params`. Raises ValueError for fewer than two rows, and for a gradient that is not
    finite."""
    if landscape.rows < 2:
        raise ValueError("two rows at least are needed, one in each half")
    total, squares = np.zeros(layout.size), np.zeros(layout.size)
    for row in range(landscape.rows):
        gradient = landscape.gradient(params, (row,)).astype(np.float64)
        if not np.isfinite(gradient).all():
            raise ValueError(f"the gradient of row {row} is not finite")
        total += gradient
        squares += gradient * gradient
    count = landscape.rows
    halves = (total * total - squares) / (count * (count - 1))
    return Measures(squares / count, by_tensor(layout, halves), by_tensor(layout, squares / count), count)


def by_tensor(layout: Layout, entries: F64) -> F64:
    """The sum of each tensor's entries [T]."""
    return np.add.reduceat(entries, layout.offsets[:-1])


def mask(fisher: F64, share: float) -> NDArray[np.uint8]:
    """The `share` of the entries with most Fisher information, rounded to the nearest count and never fewer than one;
    of equals those that come first, and none that has 0. Bits packed eight to a byte."""
    order = np.argsort(-fisher, kind="stable")[: max(1, int(share * len(fisher) + 0.5))]
    kept = np.zeros(len(fisher), dtype=np.bool_)
    kept[order] = fisher[order] > 0
    return np.packbits(kept)


def factors(measures: Measures, power: float) -> NDArray[np.float32]:
    """Factors [T] whose squares are (|g|^2 / tr F)^power, the largest 1; 0 where |g|^2 is not above 0."""
    variances = _ratios(measures) ** power
    largest = variances.max()
    return np.sqrt(variances / (largest or 1)).astype(np.float32)


def bound(measures: Measures, powers: Sequence[float] = POWERS) -> Bound:
    """What reweighting the tensors can bring. Raises ValueError where the gradient cannot be told from its noise."""
    squared, trace = measures.squared, measures.trace
    even = squared.sum() / trace.sum() if trace.sum() > 0 else 0.0
    if even <= 0:
        raise ValueError("the squared gradient is not above 0: measure more rows")
    ratios = _ratios(measures)
    gains = []
    for power in powers:
        variances = ratios**power
        gains.append((power, float((variances * squared).sum() / (variances * trace).sum() / even)))
    return Bound(float(ratios.max() / even), int(ratios.argmax()), tuple(gains))


def _ratios(measures: Measures) -> F64:
    """|g|^2 / tr F of each tensor; 0 where |g|^2 is not above 0."""
    known = (measures.trace > 0) & (measures.squared > 0)
    return np.where(known, measures.squared / np.where(known, measures.trace, 1), 0.0)
