"""The choice among candidates, as MeZO trains it (arXiv 2305.17333, appendix E). Knows no engine and no method."""

import math

import numpy as np
from numpy.typing import NDArray

from worker.objectives.base import Best, Rows, Term, total
from worker.types import Example


def share(example: Example, rows: Rows, _: Best) -> Term:
    """With s_k the mean log-probability of candidate k: logsumexp(s) - s_label, a hit where s_label is the first
    largest. A log-probability that is not finite makes it NaN and never a hit."""
    scores = [total([float(x) for x in row]) / len(row) for row in rows]
    if not all(map(math.isfinite, scores)):
        return Term((math.nan,))
    peak = max(scores)
    loss = peak + math.log(math.fsum(math.exp(s - peak) for s in scores)) - scores[example.label]
    return Term((loss,), int(scores.index(peak) == example.label))


def slopes(example: Example, rows: Rows) -> list[NDArray[np.float64]]:
    """softmax(s)_k, less 1 for the label, over the tokens of candidate k."""
    scores = [total([float(x) for x in row]) / len(row) for row in rows]
    if not all(map(math.isfinite, scores)):
        return [np.full(len(row), math.nan) for row in rows]
    powers = [math.exp(s - max(scores)) for s in scores]
    whole = math.fsum(powers)
    return [
        np.full(len(row), (power / whole - (k == example.label)) / len(row))
        for k, (row, power) in enumerate(zip(rows, powers, strict=True))
    ]
