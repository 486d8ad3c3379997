"""Language modelling: the log-probability of every target. Knows no engine and no method."""

import math

import numpy as np
from numpy.typing import NDArray

from worker.objectives.base import Best, Rows, Term
from worker.types import Example


def share(_: Example, rows: Rows, best: Best) -> Term:
    """Each target's negative log-probability; a hit where it is finite and the target the likeliest token, if that was
    asked."""
    losses = tuple(-float(x) for row in rows for x in row)
    if best is None:
        return Term(losses, None)
    likeliest = (bool(x) for row in best for x in row)
    return Term(losses, sum(hit and math.isfinite(x) for hit, x in zip(likeliest, losses, strict=True)))


def slopes(_: Example, rows: Rows) -> list[NDArray[np.float64]]:
    """-1 for each target."""
    return [np.where(np.isfinite(row), -1.0, math.nan) for row in rows]
