"""What training takes by its scored tokens, as a straight line: measured once on a worker's own scorer.

A forward pass of n scored tokens takes fixed + n token seconds: what is read whatever is scored (the weights), and what
each token adds. fixed / token is how many tokens the reading is worth. Knows trials, no engine.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

import numpy as np

from worker.scoring.scorer import Scorer
from worker.types import Candidate, Example, Layout, Module, Trial

SIZES: Final = tuple(2**k for k in range(6, 13))  # scored tokens of a forward, 64 to 4,096
LEAST: Final = 3  # sizes that a line is told from
PROBES, RANK = 16, 8


@dataclass(frozen=True)
class Line:
    """`fixed` seconds a forward, `token` seconds a scored token; `error` is the largest relative difference of a
    measured forward from it, over `sizes` sizes."""

    fixed: float
    token: float
    error: float
    sizes: int

    def seconds(self, tokens: int) -> float:
        return self.fixed + self.token * tokens

    @property
    def worth(self) -> float:
        """Scored tokens that take as long as the fixed part; 0 where tokens take no time."""
        return self.fixed / self.token if self.token else 0.0

    def told(self) -> dict[str, float | int]:
        """As a worker's row has it."""
        return {
            "fixed_seconds": self.fixed,
            "token_seconds": self.token,
            "error": round(self.error, 4),
            "sizes": self.sizes,
        }


def fitted(points: Sequence[tuple[int, float]]) -> Line:
    """The line with the least sum of squared relative differences from `points` (tokens, seconds > 0), neither part
    below 0. Raises ValueError for fewer than two sizes."""
    if len({n for n, _ in points}) < 2:
        raise ValueError("a line needs two sizes")
    weights = [1 / (s * s) for _, s in points]
    w = sum(weights)
    n, s = (sum(k * p[i] for k, p in zip(weights, points, strict=True)) / w for i in (0, 1))
    spread = sum(k * (p[0] - n) ** 2 for k, p in zip(weights, points, strict=True))
    slope = sum(k * (p[0] - n) * (p[1] - s) for k, p in zip(weights, points, strict=True)) / spread
    token, fixed = max(0.0, slope), max(0.0, s - slope * n)
    if slope < 0:
        fixed = s
    elif s < slope * n:  # through the origin
        token = sum(k * p[0] * p[1] for k, p in zip(weights, points, strict=True))
        token /= sum(k * p[0] ** 2 for k, p in zip(weights, points, strict=True))
    error = max(abs(fixed + token * p[0] - p[1]) / p[1] for p in points)
    return Line(fixed, token, error, len(points))


def measured(forward: Callable[[int], float], most: float, sizes: Iterable[int] = SIZES) -> Line:
    """The line of a `forward` that says what it took of so many scored tokens: the less of two each, until `most`
    seconds are spent, but for the first sizes. Raises ValueError for fewer than two."""
    points: list[tuple[int, float]] = []
    spent = 0.0
    for tokens in sizes:
        if len(points) >= LEAST and spent >= most:
            break
        took = forward(tokens), forward(tokens)
        spent += sum(took)
        points.append((tokens, min(took)))
    return fitted(points)


def of(
    scorer: Scorer, modules: Sequence[Module], context: int, vocab: int, longest: int, rank: int, most: float = 1.0
) -> Line:
    """The line of a resident scorer, by probes of rank 8 (or `rank`, the most that it takes) on the attention's modules
    (on all, where none is named so), each on one row, in one forward of at most `longest` tokens. Raises ValueError
    where fewer than two sizes fit."""
    wide = tuple(m for m in modules if ".self_attn." in m.name) or tuple(modules)
    rank = min(RANK, rank)
    layout, probes = Layout(rank, 2.0 * rank, wide), max(1, min(PROBES, scorer.capacity))
    params = np.zeros(layout.size, np.float32)

    def forward(tokens: int) -> float:
        trials = [Trial(layout, params, (row(tokens // probes, vocab),), "lm") for _ in range(probes)]
        begun = time.perf_counter()
        scorer.score(trials)
        return time.perf_counter() - begun

    forward(SIZES[0])  # what a first time makes ready
    fits = takewhile(lambda n: n <= longest and n // probes <= context, SIZES)
    return measured(forward, most, fits)


def row(length: int, vocab: int) -> Example:
    """A text of so many tokens, of which the last predicts one."""
    ids = np.arange(length, dtype=np.int32) % vocab
    last = np.array([length - 1], np.int32)
    return Example((ids,), (Candidate(0, last, ids[:1]),))
