"""Trials on their way through a model, one forward pass after the other. Knows trials and losses, no engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from worker.types import Loss, Trial


@dataclass(frozen=True)
class Forward:
    """One wave's forward pass, to be made by `act`: `trials` are the call's numbers of those it has parts of, `tokens`
    what it takes through the model."""

    trials: frozenset[int]
    tokens: int
    act: Callable[[], None]


class Scoring:
    """Trials on their way through a scorer, a wave at a time: between two waves others may be scored, and what is no
    longer wanted is left out. Neither changes what is in a wave, nor so what it comes to.

    `losses` gives one a trial, in order, once every wave is scored.
    """

    def __init__(self, forwards: Sequence[Forward], losses: Callable[[], list[Loss]]) -> None:
        self._left, self._losses = list(reversed(forwards)), losses
        self._dropped: set[int] = set()

    @property
    def done(self) -> bool:
        return not self._left

    @property
    def tokens(self) -> int:
        """Of the next wave, 0 where none is left."""
        return self._left[-1].tokens if self._left else 0

    def around(self, act: Callable[[Callable[[], None]], None], losses: Callable[[], list[Loss]]) -> "Scoring":
        """The same waves, `act` called with each forward's own, and other `losses` after the last."""
        forwards = [replace(f, act=partial(act, f.act)) for f in reversed(self._left)]
        self._left.clear()
        return Scoring(forwards, losses)

    def advance(self) -> int:
        """Score the next wave; how many tokens it had. What `act` raises passes through, and the wave is still to be
        scored."""
        if self.done:
            return 0
        forward = self._left[-1]
        forward.act()
        self._left.pop()
        self._skip()
        return forward.tokens

    def drop(self, number: int) -> None:
        """The call's `number`-th trial is not wanted any more: waves of such trials alone are left out, and its loss
        means nothing."""
        self._dropped.add(number)
        self._skip()

    @property
    def losses(self) -> list[Loss]:
        """One a trial, in order. Raises ValueError before it is done."""
        if not self.done:
            raise ValueError("waves are left to be scored")
        return self._losses()

    def _skip(self) -> None:
        while self._left and self._left[-1].trials <= self._dropped:
            self._left.pop()


def finished(scoring: Scoring) -> list[Loss]:
    """The losses of a scoring, brought to its end."""
    while not scoring.done:
        scoring.advance()
    return scoring.losses


def at_once(score: Callable[[Sequence[Trial]], list[Loss]], trials: Sequence[Trial]) -> Scoring:
    """A scoring of a single wave, by a function that takes all trials: for what knows no waves of its own."""
    losses: list[Loss] = []
    whole = Forward(frozenset(range(len(trials))), sum(t.tokens for t in trials), lambda: losses.extend(score(trials)))
    return Scoring([whole] if trials else [], lambda: losses)
