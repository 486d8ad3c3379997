"""Waves and wanted rows, without an engine."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scoring.cases import choice
from worker.scoring.packing import blank, wanted, waves
from worker.types import Candidate, Example, Layout, Module, Trial

SHAPE = Layout(1, 1.0, (Module("m", 2, 2),))


def trial(lengths: list[int], adapted: bool) -> Trial:
    examples = tuple(
        Example((np.zeros(n, np.int32),), (Candidate(0, np.array([n - 1], np.int32), np.array([n], np.int32)),))
        for n in lengths
    )
    return Trial(SHAPE if adapted else None, np.zeros(4, np.float32) if adapted else None, examples, "lm")


TRIALS = st.lists(st.tuples(st.lists(st.integers(1, 30), max_size=6), st.booleans()), max_size=8)


@settings(max_examples=200, deadline=None)
@given(TRIALS, st.integers(1, 4), st.integers(1, 64))
def test_every_sequence_is_in_one_wave_in_order_and_no_wave_is_too_large(
    shapes: list[tuple[list[int], bool]], slots: int, max_tokens: int
) -> None:
    trials = [trial(*s) for s in shapes]
    packed = waves(trials, slots, max_tokens)
    seen = [(s.trial, e, q) for w in packed for s in w.segments for e, q in s.places]
    assert seen == [(t, e, 0) for t, x in enumerate(trials) for e in range(len(x.examples))]
    for wave in packed:
        assert wave.segments
        assert wave.tokens <= max_tokens or sum(len(s.places) for s in wave.segments) == 1
        assert sum(trials[s.trial].params is not None for s in wave.segments) <= slots
        assert len({s.trial for s in wave.segments}) == len(wave.segments)
    reach = sum(len(wanted(trials, w).cuts) for w in packed)
    assert reach == sum(len(candidates) for answer in blank(trials) for candidates in answer)


def test_a_row_that_candidates_share_is_computed_once() -> None:
    example = choice(np.random.default_rng(0), 9)
    trials = [Trial(None, None, (example, example), "choice")]
    (wave,) = waves(trials, 1, 1000)
    want = wanted(trials, wave)
    # candidates 0 and 1 read row 8 of the first sequence, candidate 2 rows 8, 9, 10 of the second (which starts at 9)
    np.testing.assert_array_equal(want.rows, [8, 17, 18, 19, 28, 37, 38, 39])
    np.testing.assert_array_equal(want.rows[want.which], [8, 8, 17, 18, 19, 28, 28, 37, 38, 39])
    assert [c[:3] for c in want.cuts] == [(0, e, c) for e in range(2) for c in range(3)]
