"""Noise against an independent Philox, its moments, and its being a function of the place alone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.zo import noise
from worker.zo.noise import Place, Stream

MASK = 2**64 - 1
WORD = st.integers(0, 2**40)


def philox(key: tuple[int, int], counter: list[int]) -> list[int]:
    """Philox4x64-10 of Salmon et al. (SC'11), figure and constants of the paper, on Python's integers."""
    k, x = list(key), list(counter)
    for _ in range(10):
        high0, low0 = divmod(x[0] * 0xD2E7470EE14C6C93, 2**64)
        high1, low1 = divmod(x[2] * 0xCA5A826395121157, 2**64)
        x = [high1 ^ x[1] ^ k[0], low1, high0 ^ x[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return x


@given(seed=st.integers(0, 2**63 - 1), stream=WORD, step=WORD, probe=WORD, tensor=WORD, count=st.integers(1, 11))
def test_words_are_philox_of_the_place(seed, stream, step, probe, tensor, count):
    blocks = [philox((seed, stream), [block, tensor, probe, step]) for block in (1, 2, 3)]
    expected = [word for block in blocks for word in block][:count]
    assert noise.words(Place(seed, stream, step, probe, tensor), count).tolist() == expected


def test_streams_keep_their_numbers():
    """Recorded journals were measured with these; a newcomer takes a number that nobody had."""
    assert {stream.name: stream.value for stream in Stream} == {
        "START": 1, "PROBE": 2, "LEFT": 3, "RIGHT": 4,
        "SIGNS": 10, "RADIUS": 11,
        "ENTRIES": 30, "LAYERS": 31, "RATIO": 32,
        "FRAME_LEFT": 40, "FRAME_RIGHT": 41, "CORE": 42, "FIXED_LEFT": 43, "FIXED_RIGHT": 44, "TEMPORAL": 45,
        "PROJECTION": 46, "PROJECTED": 47, "MEMBER_RIGHT": 48, "TANGENT": 50, "BELOW": 51,
        "META_DIRECTION": 60, "META_WEIGHTS": 61, "META_ROWS": 62,
    }  # fmt: skip
    named = noise.normal(Place(3, Stream.LEFT, 7), 100)
    assert named.tobytes() == noise.normal(Place(3, 3, 7), 100).tobytes()
    assert named.tobytes() != noise.normal(Place(3, Stream.RIGHT, 7), 100).tobytes()


def test_normal_is_a_centred_popcount():
    words = noise.words(Place(3, 2, 7), 1000)
    expected = [(bin(int(w)).count("1") - 32) / 4 for w in words]
    drawn = noise.normal(Place(3, 2, 7), 1000)
    assert drawn.dtype == np.float32
    assert drawn.tolist() == expected


def test_signs_are_the_bits_of_the_words():
    words = noise.words(Place(3, Stream.SIGNS, 7), 3)
    expected = [1.0 if int(words[i // 64]) >> i % 64 & 1 else -1.0 for i in range(150)]
    drawn = noise.signs(Place(3, Stream.SIGNS, 7), 150)
    assert drawn.dtype == np.float32
    assert drawn.tolist() == expected
    assert noise.signs(Place(3, Stream.SIGNS, 7), 64).tolist() == expected[:64]
    many = noise.signs(Place(1, Stream.SIGNS, 3), 1_000_000)
    assert abs(many.mean()) < 5e-3
    assert abs((many[:-1] * many[1:]).mean()) < 5e-3


def test_normal_has_the_moments_of_a_standardised_binomial():
    z = noise.normal(Place(1, 2, 3), 1_000_000).astype(np.float64)
    # Five standard errors of each moment of Binomial(64, 1/2) from a million draws.
    assert abs(z.mean()) < 5e-3
    assert abs(z.var() - 1) < 5 * math.sqrt(2) * 1e-3
    assert abs((z**3).mean()) < 5 * math.sqrt(15) * 1e-3
    assert abs((z**4).mean() - (3 - 1 / 32)) < 5 * math.sqrt(96) * 1e-3
    assert np.abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 5e-3


@pytest.mark.parametrize(
    "other", [Place(2, 2, 3), Place(1, 3, 3), Place(1, 2, 4), Place(1, 2, 3, 1), Place(1, 2, 3, 0, 1)]
)
def test_places_are_uncorrelated(other):
    here, there = noise.normal(Place(1, 2, 3), 200_000), noise.normal(other, 200_000)
    assert abs(float((here * there).mean())) < 5 / math.sqrt(200_000)


def test_order_and_neighbours_of_a_draw_do_not_matter():
    place = Place(9, 2, 5)
    first = noise.normal(place, 5000)
    for step in range(40):
        noise.normal(Place(8, 2, step), 3000)
    assert noise.normal(place, 4000).tobytes() == first[:4000].tobytes()


def test_cache_is_bounded_and_does_not_alias():
    cache = noise._Recent(limit=2500)
    draws = {step: cache.halves(Place(1, 2, step), 1000) for step in range(5)}
    assert cache._bytes == 2000
    for step, drawn in draws.items():
        assert cache.halves(Place(1, 2, step), 1000).tobytes() == drawn.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        drawn[0] = 1
    mine = noise.normal(Place(4, 2, 0), 10)
    mine[:] = 0
    assert noise.normal(Place(4, 2, 0), 10).any()


def test_kaiming_fills_its_interval_evenly():
    a = noise.kaiming(Place(1, 1, 0), 64, 1024)
    bound = 1 / math.sqrt(1024)
    assert a.dtype == np.float32
    assert a.shape == (64, 1024)
    assert np.abs(a).max() < bound
    counts, _ = np.histogram(a, bins=16, range=(-bound, bound))
    expected = a.size / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-square, 15 degrees: p about 1e-4
