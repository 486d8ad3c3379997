"""Orthonormal columns out of noise, equal to the bit on every machine. Knows sides and ranks, no method."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from worker.zo import noise
from worker.zo.linalg import F64, orthogonalise
from worker.zo.noise import Place


def frames(place: Place, sides: Sequence[int], rank: int) -> list[F64]:
    """For each side a matrix [side, rank] of orthonormal columns, float64, within 1e-12; rank at most the least side.

    Q of noise = Q R, every column orthogonalised twice and R's diagonal positive: of Gaussian noise Q would be uniform
    over all such matrices, of this noise nearly so. Matrix i is of the noise of `place` with tensor number i.
    """
    alike: dict[int, list[int]] = defaultdict(list)
    for i, side in enumerate(sides):
        alike[side].append(i)
    found: list[F64] = [np.empty(0)] * len(sides)
    for side, members in alike.items():
        drawn = [noise.normal(place._replace(tensor=i), side * rank).reshape(side, rank) for i in members]
        q, _ = orthogonalise(np.stack(drawn).astype(np.float64))
        for i, matrix in zip(members, q, strict=True):
            found[i] = matrix
    return found
