"""Profiles for tests, of numbers that are the same on every machine: what making one gives is tested on its own."""

import hashlib

import numpy as np

from db.contract.methods.profiled import ProfileKind
from worker.runs import profiles
from worker.types import Layout
from worker.zo import noise
from worker.zo.noise import Place, Stream

START = 77  # the seed by which A begins in the masks
KINDS: dict[str, ProfileKind] = {"senszoq": "mask", "activation_basis": "basis", "zo_finetuner": "mlp"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def made(kind: ProfileKind, layout: Layout, base: str = "base", share: float = 0.5, hidden: int = 3) -> bytes:
    """A profile of this kind for a layout. Its mask has B's entries alone, a `share` of them."""
    return profiles.written(kind, base, "m", layout, tensors(kind, layout, share, hidden), START, {"by": "tests"})


def tensors(kind: ProfileKind, layout: Layout, share: float = 0.5, hidden: int = 3) -> dict[str, np.ndarray]:
    count = len(layout.shapes)
    match kind:
        case "factors":
            return {"factors": np.arange(1, count + 1, dtype=np.float32)}
        case "mask":
            mask = noise.uniform(Place(5, Stream.ENTRIES, 0), layout.size, 1.0) < 2 * share - 1
            for _, a, _ in layout.pairs(mask):
                a[:] = False
            return {"mask": np.packbits(mask)}
        case "basis":
            return {m.name: _rows(layout.rank, m.inputs, i) for i, m in enumerate(layout.modules)}
        case "mlp":
            return {
                "w1": _drawn(1, count, hidden, profiles.INPUTS) / np.float32(2),
                "b1": _drawn(2, count, hidden) / np.float32(2),
                "w2": _drawn(3, count, hidden) / np.float32(4),
                "b2": np.full(count, 1, np.float32),
            }


def _rows(rank: int, inputs: int, number: int) -> np.ndarray:
    """Orthonormal rows of simple fractions where there is room: of a Hadamard matrix, or of unit vectors."""
    rows = np.zeros((rank, inputs), np.float32)
    rows[np.arange(rank), (np.arange(rank) + number) % inputs] = 1
    return rows


def _drawn(tensor: int, *shape: int) -> np.ndarray:
    return noise.normal(Place(9, Stream.ENTRIES, 0, tensor=tensor), int(np.prod(shape))).reshape(shape)
