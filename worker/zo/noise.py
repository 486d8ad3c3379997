"""Noise as a pure function of where it is used, equal to the bit on every machine. Knows numpy's Philox, no method.

The source is Philox4x64-10 (Salmon et al., SC'11): a counter-based generator, integer arithmetic only. Its key is
(seed, stream), its counter (block, tensor, probe, step): places share no block, and order of drawing does not matter.
"""

import math
import threading
from collections import OrderedDict
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

CACHE_BYTES: Final = 256 * 2**20  # int8 noise kept between `ask` and `tell`; results do not depend on it


class Stream(IntEnum):
    """What noise is for. Append only: a number given once is part of every journal that was ever recorded with it."""

    START = 1  # A as PEFT starts it
    PROBE = 2  # a direction over all parameters of an adapter
    LEFT = 3  # U of a low-rank direction U V^T
    RIGHT = 4  # V
    ENTRIES = 30  # which entries a random mask keeps
    LAYERS = 31  # which layers it keeps
    RATIO = 32  # a direction over the ratios of modules
    FRAME_LEFT = 40  # what SubZero's U is made orthonormal of
    FRAME_RIGHT = 41  # its V
    CORE = 42  # its Z
    FIXED_LEFT = 43  # TeZO's u
    FIXED_RIGHT = 44  # its v
    TEMPORAL = 45  # its tau
    PROJECTION = 46  # what ZO-Muon's P is made orthonormal of
    PROJECTED = 47  # its Psi
    MEMBER_RIGHT = 48  # V of an EGGROLL member that shares none, over all modules
    SIGNS = 10  # a direction of +1 and -1 over all parameters of an adapter
    RADIUS = 11  # how far along a direction it is probed
    TANGENT = 50  # a direction that a loss is differentiated along
    BELOW = 51  # one over the parameters below the hybrid's top layers
    META_DIRECTION = 60  # a direction that networks are meta-trained along
    META_WEIGHTS = 61  # networks as their meta-training begins
    META_ROWS = 62  # which rows a step of it sees


class Place(NamedTuple):
    """Where noise is used. `stream` is the purpose, so that two uses of one step never share noise."""

    seed: int  # 0 <= seed < 2**63
    stream: Stream
    step: int
    probe: int = 0
    tensor: int = 0


def words(place: Place, count: int) -> NDArray[np.uint64]:
    """`count` uniform 64-bit words of the place, uint64 [count]. A longer draw begins with the shorter."""
    key = np.array([place.seed, place.stream], dtype=np.uint64)
    counter = np.array([0, place.tensor, place.probe, place.step], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def normal(place: Place, count: int) -> NDArray[np.float32]:
    """Noise of mean 0 and variance 1, float32 [count]: (popcount of a word - 32) / 4.

    A standardised Binomial(64, 1/2): multiples of 1/4 in [-8, 8], odd moments 0, excess kurtosis -1/32. Exact in any
    float format down to 8 bits of mantissa, so there is nothing to round and nothing for machines to differ in.
    """
    return _recent.halves(place, count).astype(np.float32) * np.float32(0.25)


def signs(place: Place, count: int) -> NDArray[np.float32]:
    """+1 or -1 with equal chance (Rademacher), float32 [count]: entry i is +1 where bit i % 64 of word i // 64 is set,
    bits counted from the least."""
    drawn = words(place, -(-count // 64)).astype("<u8").view(np.uint8)
    return np.unpackbits(drawn, count=count, bitorder="little").astype(np.float32) * np.float32(2) - np.float32(1)


def uniform(place: Place, count: int, bound: float) -> NDArray[np.float32]:
    """Uniform in (-bound, bound), float32 [count]: odd multiples of 2**-24 times the bound, one rounding each."""
    odd = (words(place, count) >> np.uint64(40)).astype(np.int64) * 2 + (1 - 2**24)
    return odd.astype(np.float32) * np.float32(2**-24) * np.float32(bound)


def kaiming(place: Place, rows: int, inputs: int) -> NDArray[np.float32]:
    """PEFT's start of A, float32 [rows, inputs]: U(-1/sqrt(inputs), 1/sqrt(inputs)) (Kaiming, a = sqrt 5)."""
    return uniform(place, rows * inputs, 1 / math.sqrt(inputs)).reshape(rows, inputs)


class _Recent:
    """The last drawn popcounts by place, bounded in bytes: `tell` needs what `ask` drew, and a cohort interleaves."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[tuple[Place, int], NDArray[np.int8]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def halves(self, place: Place, count: int) -> NDArray[np.int8]:
        """Centred popcounts, int8 [count], read-only."""
        with self._lock:
            found = self._held.get((place, count))
        if found is not None:
            return found
        drawn = np.bitwise_count(words(place, count)).view(np.int8)
        np.subtract(drawn, np.int8(32), out=drawn)
        drawn.setflags(write=False)
        with self._lock:
            if (place, count) not in self._held:
                self._held[place, count] = drawn
                self._bytes += drawn.nbytes
            while self._bytes > self._limit:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
        return drawn


_recent = _Recent(CACHE_BYTES)
