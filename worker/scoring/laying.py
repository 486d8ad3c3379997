"""The tokens of a wave laid end to end, and which rows of them are wanted. Knows waves; no engine, no adapter maths."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worker.scoring.packing import Piece, Wave
from worker.types import Example, Trial

Cut = tuple[int, int, int, int, int]  # trial, example, candidate, start, stop: which run of the targets is whose


@dataclass(frozen=True)
class Laid:
    """The tokens of a wave: `ids` int32, `positions` int64 within the sequence, `branches` int32 (0: common to the
    piece's sequences), [tokens] each.

    `segments` says which trial has which tokens (trial, start, stop), `spans` where each piece lies (start, stop), and
    `continued` what each piece continues (scope, example), None where nothing; `pieces` are they, each with its scope,
    and `below` the layers that none of their adapters acts on. The wanted `rows` [n] are distinct token
    numbers; target j reads row `rows[which[j]]` and token `targets[j]`; `cuts` say whose it is, and `greedy` [targets]
    whether its trial asks if it is the likeliest token.
    """

    branched: bool
    ids: NDArray[np.int32]
    positions: NDArray[np.int64]
    branches: NDArray[np.int32]
    segments: tuple[tuple[Trial, int, int], ...]
    spans: tuple[tuple[int, int], ...]
    continued: tuple[tuple[str, Example] | None, ...]
    rows: NDArray[np.int64]
    which: NDArray[np.int64]
    targets: NDArray[np.int64]
    greedy: NDArray[np.bool_]
    cuts: tuple[Cut, ...]
    pieces: tuple[tuple[str, Piece], ...]
    below: int


def lay(wave: Wave) -> Laid:
    """Lay out a wave and collect its scored positions; a row that several candidates read is listed once."""
    runs = _Runs()
    segments: list[tuple[Trial, int, int]] = []
    spans: list[tuple[int, int]] = []
    continued: list[tuple[str, Example] | None] = []
    pieces: list[tuple[str, Piece]] = []
    for segment in wave.segments:
        begin = runs.tokens
        for piece in segment.pieces:
            start = runs.tokens
            runs.add(segment.number, piece, segment.trial.greedy)
            spans.append((start, runs.tokens))
            pieces.append((segment.trial.scope, piece))
            continued.append((segment.trial.scope, piece.example) if piece.example.start else None)
        segments.append((segment.trial, begin, runs.tokens))
    lengths = [len(x) for x in runs.ids]
    first = np.array(runs.starts, np.int64) - (np.cumsum(lengths) - lengths)
    distinct, which = np.unique(_joined(runs.rows), return_inverse=True)
    return Laid(
        branched=wave.branched,
        ids=np.concatenate(runs.ids),
        positions=np.arange(runs.tokens, dtype=np.int64) + np.repeat(first, lengths),
        branches=np.repeat(np.array(runs.branches, np.int32), lengths),
        segments=tuple(segments),
        spans=tuple(spans),
        continued=tuple(continued),
        rows=distinct,
        which=which.astype(np.int64),
        targets=_joined(runs.targets).astype(np.int64),
        greedy=np.array(runs.greedy, np.bool_),
        cuts=tuple(runs.cuts),
        pieces=tuple(pieces),
        below=wave.below,
    )


@dataclass
class _Runs:
    """Runs of consecutive tokens, laid one after the other: `starts` is the position of each one's first token."""

    tokens: int = 0
    ids: list[NDArray[np.int32]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    targets: list[NDArray[np.int32]] = field(default_factory=list)
    greedy: list[bool] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    scored: int = 0

    def add(self, trial: int, piece: Piece, greedy: bool) -> None:
        """What the piece's sequences have in common, then what each adds, with the rows its candidates read."""
        example = piece.example
        # From which position on a sequence is its own, and the row of the wave that its position 0 would have there.
        fork = example.shared if len(piece.sequences) > 1 else example.start
        common = self.tokens - example.start
        if fork > example.start:
            self._run(example.sequences[piece.sequences[0]][example.start : fork], example.start, 0)
        for branch, s in enumerate(piece.sequences, start=1):
            own = self.tokens - fork
            self._run(example.sequences[s][fork:], fork, branch)
            for c, candidate in enumerate(example.candidates):
                if candidate.sequence == s:
                    positions = candidate.positions.astype(np.int64)
                    self.rows.append(positions + np.where(positions < fork, common, own))
                    self.targets.append(candidate.targets)
                    self.greedy += [greedy] * len(candidate.targets)
                    stop = self.scored + len(candidate.targets)
                    self.cuts.append((trial, piece.number, c, self.scored, stop))
                    self.scored = stop

    def _run(self, ids: NDArray[np.int32], start: int, branch: int) -> None:
        self.ids.append(ids)
        self.starts.append(start)
        self.branches.append(branch)
        self.tokens += len(ids)


def _joined(parts: Sequence[NDArray[np.int64]] | Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, np.int64), *parts])
