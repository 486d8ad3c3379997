"""A scoring goes wave by wave, leaves out what nobody wants any more, and gives its losses once it is done."""

import numpy as np
import pytest

from worker.forwards import Forward, Scoring, at_once, finished
from worker.types import Candidate, Example, Loss, Trial

LOSSES = [Loss(float(n), 1, 0, 10) for n in range(4)]
TEXT = Example((np.zeros(5, np.int32),), (Candidate(0, np.array([4], np.int32), np.zeros(1, np.int32)),))


def scoring(made: list[int], *waves: tuple[int, ...]) -> Scoring:
    """Waves of these trials, ten tokens a trial; `made` is told which were scored."""
    forwards = [Forward(frozenset(w), 10 * len(w), lambda n=n: made.append(n)) for n, w in enumerate(waves)]
    return Scoring(forwards, lambda: LOSSES)


def test_a_wave_is_scored_at_a_time_and_the_losses_come_after_the_last():
    made: list[int] = []
    under_way = scoring(made, (0, 1), (1, 2), (3,))
    assert (under_way.tokens, under_way.advance(), made) == (20, 20, [0])
    with pytest.raises(ValueError, match="left to be scored"):
        _ = under_way.losses
    assert [under_way.advance(), under_way.advance()] == [20, 10]
    assert under_way.done
    assert (under_way.advance(), under_way.tokens) == (0, 0)
    assert under_way.losses == LOSSES
    assert made == [0, 1, 2]


def test_waves_of_dropped_trials_alone_are_left_out_and_the_others_stay_as_they_were():
    made: list[int] = []
    under_way = scoring(made, (0,), (0, 1), (1,), (2, 3))
    under_way.advance()
    under_way.drop(1)
    assert finished(under_way) == LOSSES
    assert made == [0, 1, 3]
    under_way = scoring(made, (0,), (1,))
    under_way.drop(0)
    under_way.drop(1)
    assert under_way.done


def test_a_wave_that_raised_is_still_to_be_scored():
    fails = [RuntimeError("out of memory")]

    def act() -> None:
        if fails:
            raise fails.pop()

    under_way = Scoring([Forward(frozenset((0,)), 5, act)], lambda: LOSSES[:1])
    with pytest.raises(RuntimeError):
        under_way.advance()
    assert not under_way.done
    assert finished(under_way) == LOSSES[:1]


def test_what_goes_around_a_scoring_is_called_for_every_wave():
    made: list[int] = []
    under_way = scoring(made, (0,), (1,))
    inner = []

    def counted(act) -> None:
        inner.append(len(made))
        act()

    outer = under_way.around(counted, lambda: under_way.losses[1:])
    assert finished(outer) == LOSSES[1:]
    assert (inner, made) == ([0, 1], [0, 1])


def test_a_scorer_without_waves_scores_in_one_and_nothing_in_none():
    calls = []
    trial = Trial(None, None, (TEXT,), "lm")
    under_way = at_once(lambda trials: calls.append(trials) or LOSSES[: len(trials)], [trial, trial])
    assert (under_way.tokens, calls) == (10, [])
    assert finished(under_way) == LOSSES[:2]
    assert len(calls) == 1
    assert finished(at_once(calls.append, [])) == []
