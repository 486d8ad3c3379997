"""Minibatches are a pure function of (seed, step), and an epoch visits every row once."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.contract.sampling import DOMAIN, minibatch, permutation, split
from tests.waiting import HANG

seeds = st.integers(0, 2**63 - 1)
ROUNDS, M0, M1, W0, W1 = 10, 0xD2E7470EE14C6C93, 0xCA5A826395121157, 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
MASK = 2**64 - 1


def _philox(counter: int, key: tuple[int, int]) -> list[int]:
    """Philox4x64-10 written from the paper (Salmon et al., SC 2011), in Python's integers."""
    x, (k0, k1) = [counter, 0, 0, 0], key
    for _ in range(ROUNDS):
        left, right = M0 * x[0], M1 * x[2]
        x = [(right >> 64) ^ x[1] ^ k0, right & MASK, (left >> 64) ^ x[3] ^ k1, left & MASK]
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return x


@given(seed=seeds, epoch=st.integers(0, 10**9), rows=st.integers(1, 40))
def test_the_order_is_that_of_philox_words(seed: int, epoch: int, rows: int):
    # numpy counts before it draws, so the first block is counter 1.
    words = [word for block in range(-(-rows // 4)) for word in _philox(block + 1, (seed, (DOMAIN + epoch) & MASK))]
    assert permutation(seed, epoch, rows).tolist() == sorted(range(rows), key=lambda i: (words[i], i))


@given(seed=seeds, rows=st.integers(1, 50), batch=st.integers(1, 120), steps=st.integers(1, 8))
def test_steps_walk_through_epochs(seed: int, rows: int, batch: int, steps: int):
    walked = [i for step in range(steps) for i in minibatch(seed, step, rows, batch)]
    assert len(walked) == steps * batch
    for start in range(0, len(walked) - rows + 1, rows):
        assert sorted(walked[start : start + rows]) == list(range(rows))
    rest = walked[len(walked) // rows * rows :]
    assert len(set(rest)) == len(rest)


@given(seed=seeds, rows=st.integers(1, 50), batches=st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_the_walk_does_not_depend_on_the_batch(seed: int, rows: int, batches: tuple[int, int]):
    one, other = ([i for step in range(-(-90 // b)) for i in minibatch(seed, step, rows, b)][:90] for b in batches)
    assert one == other


@given(seed=seeds, rows=st.integers(1, 60), held=st.integers(0, 59), more=st.integers(0, 9))
def test_a_split_has_every_row_once_and_a_wider_one_holds_the_same_rows_first(
    seed: int, rows: int, held: int, more: int
):
    held, wider = held % rows, min(held % rows + more, rows - 1)
    trained, kept = (part.tolist() for part in split(seed, rows, held))
    assert trained == sorted(set(range(rows)) - set(kept))
    assert (len(kept), len(set(kept))) == (held, held)
    assert split(seed, rows, wider)[1][:held].tolist() == kept


def test_what_is_held_out_has_nothing_to_do_with_the_order_of_an_epoch():
    assert split(7, 1000, 10)[1].tolist() != permutation(7, 0, 1000)[:10].tolist()
    often = np.bincount(np.concatenate([split(seed, 10, 2)[1] for seed in range(2000)]), minlength=10)
    assert (abs(often - 400) < 80).all()  # four standard deviations and a half of a fair draw


@pytest.mark.parametrize("wrong", [(-1, 5, 1), (2**63, 5, 1), (0, 5, 5), (0, 5, -1), (0, 0, 0)])
def test_a_split_that_leaves_nothing_or_has_no_seed_is_refused(wrong):
    with pytest.raises(ValueError, match="held out"):
        split(*wrong)


def test_known_values():
    """Written down once: a change here changes what every stored job was trained on."""
    assert minibatch(0, 0, 10, 6) == KNOWN[0]
    assert minibatch(2**63 - 1, 123_456, 1000, 6) == KNOWN[1]
    assert split(2**63 - 1, 1000, 6)[1].tolist() == KNOWN_HELD_OUT


KNOWN = ((7, 6, 2, 9, 1, 5), (392, 848, 570, 964, 186, 510))
KNOWN_HELD_OUT = [526, 563, 984, 70, 183, 229]


def test_another_process_agrees():
    code = "from db.contract.sampling import minibatch; print(minibatch(7, 31, 999, 64))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG, check=True)
    assert out.stdout.strip() == str(minibatch(7, 31, 999, 64))


def test_epochs_and_seeds_differ_and_positions_are_even():
    assert minibatch(1, 0, 1000, 1000) != minibatch(1, 1, 1000, 1000) != minibatch(2, 1, 1000, 1000)
    # Mean place of each of 8 rows over 4,000 epochs: 3.5, standard error sqrt(63 / 12 / 4000) = 0.036.
    places = np.mean([np.argsort(permutation(5, epoch, 8)) for epoch in range(4000)], axis=0)
    assert np.abs(places - 3.5).max() < 5 * 0.0363


@pytest.mark.parametrize("wrong", [(-1, 0, 1, 1), (2**63, 0, 1, 1), (0, -1, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0)])
def test_what_is_out_of_range_raises(wrong: tuple[int, int, int, int]):
    with pytest.raises(ValueError, match="minibatch of seed"):
        minibatch(*wrong)


def test_a_cached_order_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        permutation(1, 1, 5)[0] = 3
