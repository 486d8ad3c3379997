"""Waves and wanted rows, without an engine."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.scoring.cases import answer, choice, text
from worker.scoring.packing import lay, waves
from worker.types import Candidate, Example, Layout, Module, Trial, blank

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
    seen = [(p.trial, p.example, s) for w in packed for p in w.pieces for s in p.sequences]
    assert seen == [(t, e, 0) for t, x in enumerate(trials) for e in range(len(x.examples))]
    for wave in packed:
        assert wave.segments
        assert wave.tokens <= max_tokens or len(wave.pieces) == 1
        assert sum(trials[s.trial].params is not None for s in wave.segments) <= slots
        assert len({s.trial for s in wave.segments}) == len(wave.segments)
    reach = sum(len(lay(trials, w).cuts) for w in packed)
    assert reach == sum(len(candidates) for answer in blank(trials) for candidates in answer)


ROWS = st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(1, 6), min_size=1, max_size=4)), max_size=5)


@settings(max_examples=200, deadline=None)
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
    places = [(p.trial, p.example, s) for w in packed for p in w.pieces for s in p.sequences]
    whole = [(t, e, s) for t, x in enumerate(trials) for e, y in enumerate(x.examples) for s in range(len(y.sequences))]
    assert sorted(places) == whole
    for wave in packed:
        assert wave.tokens <= max_tokens or len(wave.pieces) == 1
        assert len(wave.segments) <= slots
        prompts = {trials[p.trial].examples[p.example].prompt_key for p in wave.pieces}
        assert sum(len(p) // 4 for p in prompts) <= 20
        laid = lay(trials, wave)
        assert len(laid.ids) == len(laid.positions) == len(laid.branches) == wave.tokens
        for number, e, c, low, high in laid.cuts:
            example = trials[number].examples[e]
            candidate = example.candidates[c]
            at = laid.rows[laid.which[low:high]]
            np.testing.assert_array_equal(laid.positions[at], candidate.positions)
            np.testing.assert_array_equal(laid.ids[at], example.sequences[candidate.sequence][candidate.positions])
            np.testing.assert_array_equal(laid.targets[low:high], candidate.targets)
    if all(len(w.pieces) == 1 or w.tokens < max_tokens for w in packed):
        paid = sum(w.tokens for w in packed)
        split = len({(t, e) for t, e, _ in places}) != sum(len(w.pieces) for w in packed)
        assert split or paid == sum(t.tokens for t in trials)


def test_probes_of_a_step_meet_the_same_prompts_in_the_same_wave() -> None:
    rng = np.random.default_rng(1)
    examples = tuple(answer(rng, 10, 1, 1) for _ in range(6))
    trials = [Trial(SHAPE, np.zeros(4, np.float32), examples, "choice")] * 4
    packed = waves(trials, slots=16, max_tokens=1000, max_prompts=20)
    met = [sorted({(p.example) for p in w.pieces}) for w in packed]
    assert met == [[0, 1], [2, 3], [4, 5]]
    assert all(len(w.pieces) == 8 for w in packed)


def test_what_branches_is_apart_from_what_does_not() -> None:
    rng = np.random.default_rng(2)
    plain = Trial(None, None, (text(rng, 9),), "lm")
    shared = Trial(None, None, (replace(answer(rng, 4, 3, 2), start=0),), "choice")
    packed = waves([shared, plain, shared], 4, 1000)
    assert [(w.branched, [p.trial for p in w.pieces]) for w in packed] == [(False, [1]), (True, [0, 2])]


def test_a_row_that_candidates_share_is_computed_once() -> None:
    example = choice(np.random.default_rng(0), 9)
    trials = [Trial(None, None, (example, example), "choice")]
    (wave,) = waves(trials, 1, 1000)
    laid = lay(trials, wave)
    # candidates 0 and 1 read row 8 of the first sequence, candidate 2 rows 8, 9, 10 of the second (which starts at 9)
    np.testing.assert_array_equal(laid.rows, [8, 17, 18, 19, 28, 37, 38, 39])
    np.testing.assert_array_equal(laid.rows[laid.which], [8, 8, 17, 18, 19, 28, 28, 37, 38, 39])
    assert [c[:3] for c in laid.cuts] == [(0, e, c) for e in range(2) for c in range(3)]
