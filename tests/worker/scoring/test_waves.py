"""The engine a wave at a time: to the bit what it comes to in one go, whatever is scored in between."""

import numpy as np

from tests.worker.scoring.cases import crowd, layout, lm, probe
from tests.worker.scoring.conftest import MAX_TOKENS, SLOTS, Pair
from worker.forwards import finished


def test_what_is_scored_between_two_waves_changes_no_bit(pair: Pair) -> None:
    """Two crowds take turns wave by wave, and small trials of other widths come in between."""
    rng = np.random.default_rng(11)
    crowds = [crowd(np.random.default_rng(seed), pair.modules) for seed in (12, 13)]
    wide, narrow = layout(pair.modules, 8, 16.0), layout(pair.modules, 1, 1.0, "q_proj")
    small = [lm(rng, wide, probe(rng, wide), 1), lm(rng, narrow, probe(rng, narrow), 1)]
    alone = [pair.vllm.score(trials) for trials in crowds]
    singly = [pair.vllm.score([trial]) for trial in small]
    under_way = [pair.vllm.start(trials) for trials in crowds]
    rounds = 0
    while not all(scoring.done for scoring in under_way):
        for scoring in under_way:
            assert scoring.advance() <= MAX_TOKENS
        assert pair.vllm.score([small[rounds % 2]]) == singly[rounds % 2]
        rounds += 1
    assert rounds > 2
    assert [scoring.losses for scoring in under_way] == alone


def test_trials_that_are_dropped_are_not_scored_and_the_others_keep_every_bit(pair: Pair) -> None:
    trials = crowd(np.random.default_rng(14), pair.modules)
    whole = pair.vllm.score(trials)
    scoring = pair.vllm.start(trials)
    waves = _waves(pair, trials)
    scoring.advance()
    for number in range(SLOTS, len(trials)):
        scoring.drop(number)
    taken = 1
    while not scoring.done:
        scoring.advance()
        taken += 1
    assert taken < waves
    assert scoring.losses[:SLOTS] == whole[:SLOTS]


def test_the_waves_of_a_scoring_say_what_they_take(pair: Pair) -> None:
    trials = crowd(np.random.default_rng(15), pair.modules)
    scoring, said, took = pair.vllm.start(trials), [], []
    while not scoring.done:
        said.append(scoring.tokens)
        took.append(scoring.advance())
    assert said == took
    assert sum(took) == sum(t.tokens for t in trials)
    assert finished(scoring) == pair.vllm.score(trials)


def _waves(pair: Pair, trials) -> int:
    scoring, count = pair.vllm.start(trials), 0
    while not scoring.done:
        scoring.advance()
        count += 1
    return count
