"""What the tests of windows of orthonormal columns share: LAPACK's frames, and LAPACK's msign. Knows no method."""

import numpy as np
from numpy.typing import NDArray

from worker.types import Layout
from worker.zo import noise
from worker.zo.noise import Place, Stream

F64 = NDArray[np.float64]


def frame(seed: int, stream: Stream, window: int, tensor: int, side: int, rank: int) -> F64:
    """Orthonormal columns of the place's noise, [side, rank]."""
    drawn = noise.normal(Place(seed, stream, window, tensor=tensor), side * rank).reshape(side, rank)
    q, r = np.linalg.qr(drawn.astype(np.float64))
    return q * np.sign(np.diag(r))


def msign(g: F64) -> F64:
    """U V^T of g = U S V^T."""
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    return u @ vt


def targets(layout: Layout) -> list[F64]:
    """The targets of `tests.worker.zo.problems.Quadratic`."""
    rng = np.random.default_rng(5)
    found = [np.outer(rng.normal(size=m.outputs), rng.normal(size=m.inputs)) for m in layout.modules]
    return [t / np.linalg.norm(t) for t in found]
