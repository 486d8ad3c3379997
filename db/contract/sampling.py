"""Which rows a step trains on, and which are held out: pure functions of the seed, equal on every machine.

Knows counts only."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Keeps these words apart from every other use of the same seed with Philox (noise keys by its own domain).
DOMAIN = 0x6F6E776172640001
HELD_OUT = 0x6F6E7768656C6401  # of which rows are held out: DOMAIN + epoch does not come so far


def minibatch(seed: int, step: int, rows: int, batch: int) -> tuple[int, ...]:
    """The row indices of a step: positions [step * batch, (step + 1) * batch) of an endless walk through the rows.

    The walk visits every row once an epoch, each epoch in its own order, so a batch is without repetition unless it
    crosses an epoch or exceeds the rows. Integers only: no rounding, no platform in it. `seed` in [0, 2**63), `step`
    from 0, `rows` and `batch` from 1.
    """
    if not (0 <= seed < 2**63 and step >= 0 and rows >= 1 and batch >= 1):
        raise ValueError(f"minibatch of seed {seed}, step {step}, {rows} rows, batch {batch}")
    first, last = step * batch, (step + 1) * batch
    picked: list[int] = []
    for epoch in range(first // rows, (last - 1) // rows + 1):
        low, high = max(first - epoch * rows, 0), min(last - epoch * rows, rows)
        picked.extend(permutation(seed, epoch, rows)[low:high].tolist())
    return tuple(picked)


def walked(seed: int, rows: int, places: Sequence[int]) -> tuple[int, ...]:
    """The row indices at these places of the walk's first epoch, each below `rows`: what a method that asks for other
    rows than a step's names them by, so that the first n of them are a chance draw. Raises IndexError beyond."""
    return tuple(permutation(seed, 0, rows)[list(places)].tolist())


@lru_cache(maxsize=16)
def split(seed: int, rows: int, held_out: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Which of a file's `rows` are trained on, in file order, and the `held_out` ones that are not, in the order they
    are drawn in: the first of them are a chance draw as well. Read-only.

    Held out are the first in the order of `permutation`'s kind keyed by (seed, HELD_OUT): a larger number holds out the
    same rows and more. `seed` in [0, 2**63), `held_out` from 0 and below `rows`.
    """
    if not (0 <= seed < 2**63 and 0 <= held_out < rows):
        raise ValueError(f"{held_out} rows held out of {rows} by seed {seed}")
    order = _sorted(seed, HELD_OUT, rows)
    trained, kept = np.sort(order[held_out:]), order[:held_out]
    trained.setflags(write=False)
    return trained, kept


@lru_cache(maxsize=64)
def permutation(seed: int, epoch: int, rows: int) -> NDArray[np.int32]:
    """The order of an epoch [rows]: row i is sorted by the i-th 64-bit word of Philox4x64-10 (Salmon et al., SC 2011)
    keyed by (seed, DOMAIN + epoch), ties by index. Read-only."""
    return _sorted(seed, DOMAIN + epoch, rows)


def _sorted(seed: int, domain: int, rows: int) -> NDArray[np.int32]:
    key = np.array([seed, domain % 2**64], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=0).random_raw(rows)
    order = np.argsort(words, kind="stable").astype(np.int32)
    order.setflags(write=False)
    return order
