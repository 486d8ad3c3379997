"""A fixed on given directions, B alone probed and moved. Knows the noise, no loss and no profile.

AGZO (arXiv 2601.17261) and ZO-Act (arXiv 2607.01125), as they are cited; neither was read. With orthonormal rows of A,
dW = s B A moves in the space that the inputs of a module span most, and B's entries are the coordinates there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.types import Params
from worker.zo.methods.mezo import AdapterSpace, State


@dataclass(frozen=True)
class BasisSpace(AdapterSpace):
    """All P parameters; A starts as `rows`, for each module [rank, inputs], and B at 0. With `Halves` of 0 A stays."""

    rows: tuple[NDArray[np.float32], ...]

    def start(self) -> tuple[Params, State]:
        params = np.zeros(self.layout.size, dtype=np.float32)
        for (_, a, _), row in zip(self.layout.pairs(params), self.rows, strict=True):
            a[:] = row
        return params, State()
