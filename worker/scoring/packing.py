"""Which sequences share a forward pass, and which rows of it are wanted. Knows trials; no engine, no adapter maths."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.types import Trial

LogProbs = list[list[NDArray[np.float32]]]  # over examples, over candidates: [targets], nats


@dataclass(frozen=True)
class Segment:
    """Consecutive sequences of one trial within a wave. `places` are (example, sequence) numbers within the trial."""

    trial: int
    places: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True)
class Wave:
    """One forward pass: segments laid end to end without padding."""

    segments: tuple[Segment, ...]

    @property
    def tokens(self) -> int:
        return sum(s.tokens for s in self.segments)


def waves(trials: Sequence[Trial], slots: int, max_tokens: int) -> list[Wave]:
    """Pack every sequence of every trial, in order, into as few waves as a greedy pass makes.

    A wave holds at most `slots` distinct adapters and `max_tokens` tokens; a single longer sequence has a wave to
    itself. A trial that does not fit is continued in the next wave.
    """
    out: list[Wave] = []
    segments: list[Segment] = []
    tokens = adapters = 0
    for number, trial in enumerate(trials):
        places: list[tuple[int, int]] = []
        lengths: list[int] = []
        for e, example in enumerate(trial.examples):
            for s, sequence in enumerate(example.sequences):
                opens = not places and trial.params is not None
                if tokens and (tokens + len(sequence) > max_tokens or (opens and adapters == slots)):
                    if places:
                        segments.append(Segment(number, tuple(places), tuple(lengths)))
                    out.append(Wave(tuple(segments)))
                    segments, places, lengths, tokens, adapters = [], [], [], 0, 0
                if not places and trial.params is not None:
                    adapters += 1
                places.append((e, s))
                lengths.append(len(sequence))
                tokens += len(sequence)
        if places:
            segments.append(Segment(number, tuple(places), tuple(lengths)))
    if segments:
        out.append(Wave(tuple(segments)))
    return out


@dataclass(frozen=True)
class Wanted:
    """The scored positions of a wave. `rows` [n] are distinct token numbers in the wave; target j reads row
    `rows[which[j]]` and token `targets[j]`; `cuts` says which run of targets belongs to whom:
    (trial, example, candidate, start, stop)."""

    rows: NDArray[np.int64]
    which: NDArray[np.int64]
    targets: NDArray[np.int64]
    cuts: tuple[tuple[int, int, int, int, int], ...]


def wanted(trials: Sequence[Trial], wave: Wave) -> Wanted:
    """Collect the scored positions of a wave; a row that several candidates read is listed once."""
    rows: list[NDArray[np.int64]] = []
    targets: list[NDArray[np.int64]] = []
    cuts: list[tuple[int, int, int, int, int]] = []
    start = done = 0
    for segment in wave.segments:
        for (e, s), length in zip(segment.places, segment.lengths, strict=True):
            for c, candidate in enumerate(trials[segment.trial].examples[e].candidates):
                if candidate.sequence != s:
                    continue
                rows.append(candidate.positions.astype(np.int64) + start)
                targets.append(candidate.targets.astype(np.int64))
                cuts.append((segment.trial, e, c, done, done + len(candidate.targets)))
                done += len(candidate.targets)
            start += length
    if not cuts:
        empty = np.zeros(0, np.int64)
        return Wanted(empty, empty, empty, ())
    distinct, which = np.unique(np.concatenate(rows), return_inverse=True)
    return Wanted(distinct, which.astype(np.int64), np.concatenate(targets), tuple(cuts))


def blank(trials: Sequence[Trial]) -> list[LogProbs]:
    """Places for every candidate's log-probabilities, NaN until filled."""
    return [
        [[np.full(len(c.targets), np.nan, np.float32) for c in example.candidates] for example in trial.examples]
        for trial in trials
    ]
