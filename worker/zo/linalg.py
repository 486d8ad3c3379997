"""Linear algebra with one order of operations on every machine. Knows matrices and layouts, no method.

No BLAS, no LAPACK, no numpy reduction: sums are trees of elementwise additions, factorisations use +, -, *, / and sqrt
in float64, which IEEE 754 rounds exactly. Modules of one shape are worked on as a stack [m, ...].
"""

import math
from collections import defaultdict
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.types import Layout, Params

F64 = NDArray[np.float64]
NEGLIGIBLE: Final = 1e-13  # of a column's norm: what is left of it after orthogonalisation counts as 0
QUINTIC: Final = (3.4445, -4.7750, 2.0315), 8  # Muon's polynomial (Jordan et al., 2024): raises small singular values
CUBIC: Final = (1.5, -0.5, 0.0), 6  # Newton-Schulz: from within (0, sqrt 3) to 1, quadratically
ORTHOGONAL: Final = 1e-14  # cosine below which two columns count as orthogonal
SWEEPS: Final = 40  # cyclic Jacobi needs about 10


def tree_sum(x: F64, axis: int) -> F64:
    """Sum over one axis in a fixed binary tree."""
    x = np.moveaxis(x, axis, 0)
    while len(x) > 1:
        half = len(x) // 2
        folded = x[:half] + x[half : 2 * half]
        if len(x) % 2:
            folded[0] += x[-1]
        x = folded
    total: F64 = x[0]
    return total


def product(a: F64, b: F64) -> F64:
    """a [..., n, k] @ b [..., k, p], added up in the order of k."""
    total = a[..., :, 0, None] * b[..., 0, None, :]
    for k in range(1, a.shape[-1]):
        total += a[..., :, k, None] * b[..., k, None, :]
    return total


def orthogonalise(x: F64) -> tuple[F64, F64]:
    """(Q, T) with x = Q T for x [m, n, k]: Gram-Schmidt, every column twice; T [m, k, k] upper triangular.

    Columns of Q are orthonormal, or 0 where x's column depends on those before it.
    """
    q, t = np.zeros_like(x), np.zeros((len(x), x.shape[2], x.shape[2]))
    for k in range(x.shape[2]):
        v = x[:, :, k]
        before = np.sqrt(tree_sum(v * v, 1))
        for _ in range(2 if k else 0):
            along = tree_sum(q[:, :, :k] * v[:, :, None], 1)
            v = v - tree_sum(q[:, :, :k] * along[:, None, :], 2)
            t[:, :k, k] += along
        norm = np.sqrt(tree_sum(v * v, 1))
        kept = norm > NEGLIGIBLE * before
        t[:, k, k] = np.where(kept, norm, 0)
        q[:, :, k] = np.where(kept[:, None], v / np.where(kept, norm, 1)[:, None], 0)
    return q, t


def orthogonal_columns(x: F64) -> tuple[F64, F64]:
    """(G, V) with G = x V for x [m, k, k]: V orthogonal, columns of G orthogonal in order of falling norm.

    One-sided Jacobi (Hestenes 1958): G = U S of the singular value decomposition x = U S V^T.
    """
    size = x.shape[2]
    g, v = x.copy(), np.broadcast_to(np.eye(size), x.shape).copy()
    for _ in range(SWEEPS):
        turned = False
        for first, second in _rounds(size):
            a, b = g[:, :, first], g[:, :, second]
            aa, bb, ab = tree_sum(a * a, 1), tree_sum(b * b, 1), tree_sum(a * b, 1)
            wanted = np.abs(ab) > ORTHOGONAL * (np.sqrt(aa) * np.sqrt(bb))
            if not wanted.any():
                continue
            turned = True
            zeta = (bb - aa) / np.where(wanted, 2 * ab, 1)
            with np.errstate(over="ignore"):  # a column of rounding beside a long one: infinite, and turned by 0
                tangent = np.where(zeta < 0, -1.0, 1.0) / (np.abs(zeta) + np.sqrt(1 + zeta * zeta))
            tangent = np.where(wanted, tangent, 0)
            cosine = 1 / np.sqrt(1 + tangent * tangent)
            sine = cosine * tangent
            for y in (g, v):
                a, b = y[:, :, first], y[:, :, second]
                y[:, :, first], y[:, :, second] = (
                    a * cosine[:, None] - b * sine[:, None],
                    a * sine[:, None] + b * cosine[:, None],
                )
        if not turned:
            break
    order = np.argsort(-tree_sum(g * g, 1), axis=1, kind="stable")[:, None, :]
    return np.take_along_axis(g, order, 2), np.take_along_axis(v, order, 2)


def _rounds(size: int) -> list[tuple[list[int], list[int]]]:
    """Every pair of columns once, in rounds of disjoint pairs (the circle method)."""
    seats = list(range(size + size % 2))
    rounds = []
    for _ in range(len(seats) - 1):
        pairs = [(seats[i], seats[-1 - i]) for i in range(len(seats) // 2)]
        pairs = [(min(p), max(p)) for p in pairs if max(p) < size]
        if pairs:
            rounds.append(([p for p, _ in pairs], [q for _, q in pairs]))
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return rounds


def matrix_sign(g: F64) -> F64:
    """msign(g) = U V^T of the singular value decomposition g = U S V^T, for g [m, r, n]: the nearest matrix whose
    singular values are all 1, or 0 where g's are.

    Newton-Schulz on x = g / |g|, a fixed number of steps x <- (a + b x x^T + c (x x^T)^2) x, carried out on x x^T
    [r, r] alone, since all its polynomials commute. Singular values above 1e-4 of |g| (Frobenius) come to 1.
    """
    size = np.sqrt(tree_sum(tree_sum(g * g, 2), 1))[:, None, None]
    x = g / np.where(size > 0, size, 1)
    last = np.ascontiguousarray(np.moveaxis(x, 2, 0))  # sums over the longest side, its terms side by side
    gram = np.stack([tree_sum(last[:, :, i : i + 1] * last, 0) for i in range(x.shape[1])], 1)
    unit = np.eye(x.shape[1])
    whole = np.broadcast_to(unit, gram.shape)
    for (a, b, c), steps in (QUINTIC, CUBIC):
        for _ in range(steps):
            factor = a * unit + b * gram
            if c:
                factor += c * product(gram, gram)
            whole = product(factor, whole)
            gram = product(product(factor, gram), factor)
    return product(whole, x)


class Cut(NamedTuple):
    """B A^T of a stack as its best approximation of lower rank: `left` [m, n, keep] times `right` [m, k, keep]
    transposed, `right` orthonormal. `energies` [m, c] are the singular values squared, falling, of what was cut;
    `left_turn` and `right_turn` [m, c, c] its columns in orthonormal bases."""

    left: F64
    right: F64
    energies: F64
    left_turn: F64
    right_turn: F64


def cut(b: F64, a: F64, keep: int) -> Cut:
    """b [m, n, c] times a [m, k, c] transposed at rank `keep` (Eckart-Young)."""
    (qa, ta), (qb, tb) = orthogonalise(a), orthogonalise(b)
    g, v = orthogonal_columns(product(tb, np.swapaxes(ta, 1, 2)))
    left, right = product(qb, g[:, :, :keep]), product(qa, v[:, :, :keep])
    return Cut(left, right, tree_sum(g * g, 1), tb, ta)


def recompress(layout: Layout, params: Params, keep: int) -> tuple[Params, float]:
    """(params, lost): each module's B A as its best approximation of rank `keep` (Eckart-Young) in the first `keep`
    rows of A, orthonormal, and columns of B; the rest is 0. `lost` is the relative Frobenius error over all modules,
    sqrt(sum of dropped singular values squared / sum of all squared); rounding to float32 is not in it."""
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, module in enumerate(layout.modules):
        alike[module.outputs, module.inputs].append(i)
    folded = np.zeros_like(params)
    dropped: list[float] = []
    whole: list[float] = []
    for members in alike.values():
        a = np.stack([layout.tensor(params, 2 * i).T for i in members]).astype(np.float64)
        b = np.stack([layout.tensor(params, 2 * i + 1) for i in members]).astype(np.float64)
        done = cut(b, a, keep)
        for j, i in enumerate(members):
            layout.tensor(folded, 2 * i)[:keep] = done.right[j].T
            layout.tensor(folded, 2 * i + 1)[:, :keep] = done.left[j]
        whole += [float(x) for x in done.energies.ravel()]
        dropped += [float(x) for x in done.energies[:, keep:].ravel()]
    total = math.fsum(whole)
    return folded, math.sqrt(math.fsum(dropped) / total) if total else 0.0
