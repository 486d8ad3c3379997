"""Waves and wanted rows, without an engine."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.scoring.cases import answer, choice, text
from worker.scoring.laying import lay
from worker.scoring.packing import Piece, Wave, waves
from worker.types import Candidate, Example, Layout, Module, Trial, blank

SHAPE = Layout(1, 1.0, (Module("m", 2, 2),))


def trial(lengths: list[int], adapted: bool) -> Trial:
    examples = tuple(
        Example((np.zeros(n, np.int32),), (Candidate(0, np.array([n - 1], np.int32), np.array([n], np.int32)),))
        for n in lengths
    )
    return Trial(SHAPE if adapted else None, np.zeros(4, np.float32) if adapted else None, examples, "lm")


def pieces(wave: Wave) -> list[Piece]:
    return [piece for segment in wave.segments for piece in segment.pieces]


def width(wave: Wave) -> int:
    """Tokens of a wave."""
    return sum(piece.tokens for piece in pieces(wave))


def places(wave: Wave) -> list[tuple[int, int, int]]:
    """(trial, example, sequence) of all that a wave lays, in order."""
    return [(s.number, p.number, sequence) for s in wave.segments for p in s.pieces for sequence in p.sequences]


TRIALS = st.lists(st.tuples(st.lists(st.integers(1, 30), max_size=6), st.booleans()), max_size=8)


@settings(max_examples=200)
@given(TRIALS, st.integers(1, 4), st.integers(1, 64))
def test_every_sequence_is_in_one_wave_in_order_and_no_wave_is_too_large(
    shapes: list[tuple[list[int], bool]], slots: int, max_tokens: int
) -> None:
    trials = [trial(*s) for s in shapes]
    packed = waves(trials, slots, max_tokens)
    seen = [place for w in packed for place in places(w)]
    assert seen == [(t, e, 0) for t, x in enumerate(trials) for e in range(len(x.examples))]
    for wave in packed:
        assert wave.segments
        assert width(wave) <= max_tokens or len(pieces(wave)) == 1
        assert sum(s.trial.params is not None for s in wave.segments) <= slots
        assert len({s.number for s in wave.segments}) == len(wave.segments)
        assert all(s.trial is trials[s.number] for s in wave.segments)
    reach = sum(len(lay(w).cuts) for w in packed)
    assert reach == sum(len(candidates) for answer in blank(trials) for candidates in answer)


ROWS = st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(1, 6), min_size=1, max_size=4)), max_size=5)


@settings(max_examples=200)
@given(st.lists(st.tuples(ROWS, st.integers(1, 3)), max_size=4), st.integers(1, 4), st.integers(4, 40))
def test_every_token_that_branches_is_laid_once_and_read_where_it_lies(
    jobs: list[tuple[list[tuple[int, list[int]]], int]], slots: int, max_tokens: int
) -> None:
    """Prompts, shared tokens and branches: each wanted row holds the token and position that the candidate reads."""
    rng = np.random.default_rng(0)
    trials: list[Trial] = []
    for rows, probes in jobs:
        examples = tuple(answer(rng, prompt, *tails) for prompt, tails in rows)
        trials += [Trial(SHAPE, np.zeros(4, np.float32), examples, "choice")] * probes
    packed = waves(trials, slots, max_tokens, max_prompts=20)
    laid_at = [place for w in packed for place in places(w)]
    whole = [(t, e, s) for t, x in enumerate(trials) for e, y in enumerate(x.examples) for s in range(len(y.sequences))]
    assert sorted(laid_at) == whole
    for wave in packed:
        assert width(wave) <= max_tokens or len(pieces(wave)) == 1
        assert len(wave.segments) <= slots
        prompts = {p.example.prompt_key for p in pieces(wave)}
        assert sum(len(p) // 4 for p in prompts) <= 20
        laid = lay(wave)
        assert len(laid.ids) == len(laid.positions) == len(laid.branches) == width(wave)
        assert [t for t, _, _ in laid.segments] == [s.trial for s in wave.segments]
        assert [b for _, _, b in laid.segments] == [a for _, a, _ in laid.segments[1:]] + [width(wave)]
        assert [c and c[1] for c in laid.continued] == [p.example if p.example.start else None for p in pieces(wave)]
        for number, e, c, low, high in laid.cuts:
            example = trials[number].examples[e]
            candidate = example.candidates[c]
            at = laid.rows[laid.which[low:high]]
            np.testing.assert_array_equal(laid.positions[at], candidate.positions)
            np.testing.assert_array_equal(laid.ids[at], example.sequences[candidate.sequence][candidate.positions])
            np.testing.assert_array_equal(laid.targets[low:high], candidate.targets)
    if all(len(pieces(w)) == 1 or width(w) < max_tokens for w in packed):
        paid = sum(width(w) for w in packed)
        split = len({(t, e) for t, e, _ in laid_at}) != sum(len(pieces(w)) for w in packed)
        assert split or paid == sum(t.tokens for t in trials)


def test_probes_of_a_step_meet_the_same_prompts_in_the_same_wave() -> None:
    rng = np.random.default_rng(1)
    examples = tuple(answer(rng, 10, 1, 1) for _ in range(6))
    trials = [Trial(SHAPE, np.zeros(4, np.float32), examples, "choice")] * 4
    packed = waves(trials, slots=16, max_tokens=1000, max_prompts=20)
    met = [sorted({p.number for p in pieces(w)}) for w in packed]
    assert met == [[0, 1], [2, 3], [4, 5]]
    assert all(len(pieces(w)) == 8 for w in packed)


def test_what_branches_is_apart_from_what_does_not() -> None:
    rng = np.random.default_rng(2)
    plain = Trial(None, None, (text(rng, 9),), "lm")
    shared = Trial(None, None, (replace(answer(rng, 4, 3, 2), start=0),), "choice")
    packed = waves([shared, plain, shared], 4, 1000)
    assert [(w.branched, [s.number for s in w.segments]) for w in packed] == [(False, [1]), (True, [0, 2])]


def test_a_row_that_candidates_share_is_computed_once() -> None:
    example = choice(np.random.default_rng(0), 9)
    trials = [Trial(None, None, (example, example), "choice")]
    (wave,) = waves(trials, 1, 1000)
    laid = lay(wave)
    # candidates 0 and 1 read row 8 of the first sequence, candidate 2 rows 8, 9, 10 of the second (which starts at 9)
    np.testing.assert_array_equal(laid.rows, [8, 17, 18, 19, 28, 37, 38, 39])
    np.testing.assert_array_equal(laid.rows[laid.which], [8, 8, 17, 18, 19, 28, 28, 37, 38, 39])
    assert [c[:3] for c in laid.cuts] == [(0, e, c) for e in range(2) for c in range(3)]
