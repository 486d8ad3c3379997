"""Which tokens share a forward pass, and which rows of it are wanted. Knows trials; no engine, no adapter maths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worker.types import Example, Trial


@dataclass(frozen=True)
class Piece:
    """Sequences of one example under one trial, laid end to end from the example's `start` on: what they have in common
    once, then what each adds. `tokens` are those laid."""

    trial: int
    example: int
    sequences: tuple[int, ...]
    tokens: int


@dataclass(frozen=True)
class Segment:
    """Consecutive pieces of one trial within a wave."""

    trial: int
    pieces: tuple[Piece, ...]

    @property
    def tokens(self) -> int:
        return sum(p.tokens for p in self.pieces)


@dataclass(frozen=True)
class Wave:
    """One forward pass: segments laid end to end without padding. In a `branched` one pieces continue a prompt that was
    computed before, or hold several sequences; in any other every piece is one whole sequence."""

    segments: tuple[Segment, ...]
    branched: bool = False

    @property
    def tokens(self) -> int:
        return sum(s.tokens for s in self.segments)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return tuple(p for s in self.segments for p in s.pieces)


def waves(trials: Sequence[Trial], slots: int, max_tokens: int, max_prompts: int = 1 << 62) -> list[Wave]:
    """Pack every sequence of every trial into as few waves as a greedy pass makes: whole sequences first, then what
    branches, each in order.

    A wave holds at most `slots` distinct adapters, `max_tokens` tokens and distinct prompts of `max_prompts` tokens; a
    piece beyond that has a wave to itself. A trial that does not fit is continued in the next wave.
    """
    branching = [any(e.start or e.shared for e in t.examples) for t in trials]
    whole, branched = (_Packer(slots, max_tokens, max_prompts, b) for b in (False, True))
    for number, trial in enumerate(trials):
        if not branching[number]:
            whole.add(trials, number, range(len(trial.examples)))
    for number, examples in _rounds(trials, [n for n, b in enumerate(branching) if b], max_prompts):
        branched.add(trials, number, examples)
    return whole.closed() + branched.closed()


def _rounds(trials: Sequence[Trial], numbers: Sequence[int], max_prompts: int) -> Iterator[tuple[int, range]]:
    """(trial, examples) in such an order that trials of the same examples, as a step's probes are, meet the same
    prompts at the same time, however many there are."""
    at = 0
    while at < len(numbers):
        examples = trials[numbers[at]].examples
        alike = 1
        while at + alike < len(numbers) and trials[numbers[at + alike]].examples is examples:
            alike += 1
        first = tokens = 0
        for e, example in enumerate(examples):
            if tokens and tokens + example.start > max_prompts:
                yield from ((n, range(first, e)) for n in numbers[at : at + alike])
                first, tokens = e, 0
            tokens += example.start
        yield from ((n, range(first, len(examples))) for n in numbers[at : at + alike])
        at += alike


@dataclass
class _Packer:
    slots: int
    max_tokens: int
    max_prompts: int
    branched: bool
    waves: list[Wave] = field(default_factory=list)
    open: list[tuple[int, list[Piece]]] = field(default_factory=list)
    tokens: int = 0
    adapters: int = 0
    prompts: dict[bytes, int] = field(default_factory=dict)

    def add(self, trials: Sequence[Trial], number: int, examples: range) -> None:
        trial = trials[number]
        for e in examples:
            example = trial.examples[e]
            for piece in _pieces(number, e, example, self.max_tokens):
                opens = not self.open or self.open[-1][0] != number
                known = not example.start or example.prompt_key in self.prompts
                prompts = sum(self.prompts.values()) + (0 if known else example.start)
                if self.open and (
                    self.tokens + piece.tokens > self.max_tokens
                    or (opens and trial.params is not None and self.adapters == self.slots)
                    or (not known and self.prompts and prompts > self.max_prompts)
                ):
                    self.closed()
                    opens = True
                if opens:
                    self.open.append((number, []))
                    self.adapters += trial.params is not None
                self.open[-1][1].append(piece)
                self.tokens += piece.tokens
                if example.start:
                    self.prompts[example.prompt_key] = example.start

    def closed(self) -> list[Wave]:
        """Every wave so far, the one begun included."""
        if self.open:
            segments = tuple(Segment(n, tuple(pieces)) for n, pieces in self.open)
            self.waves.append(Wave(segments, self.branched))
        self.open, self.tokens, self.adapters, self.prompts = [], 0, 0, {}
        return self.waves


def _pieces(number: int, e: int, example: Example, max_tokens: int) -> Iterator[Piece]:
    """The example in one piece, or in as many as it takes for each to fit a wave; sequences without common tokens
    apart."""
    if not example.shared:
        for s, sequence in enumerate(example.sequences):
            yield Piece(number, e, (s,), len(sequence) - example.start)
        return
    common = example.shared - example.start
    chosen: list[int] = []
    tokens = common
    for s, sequence in enumerate(example.sequences):
        own = len(sequence) - example.shared
        if chosen and tokens + own > max_tokens:
            yield Piece(number, e, tuple(chosen), tokens)
            chosen, tokens = [], common
        chosen.append(s)
        tokens += own
    yield Piece(number, e, tuple(chosen), tokens)


@dataclass(frozen=True)
class Laid:
    """The tokens of a wave: `ids` int32, `positions` int64 within the sequence, `branches` int32 (0: common to the
    piece's sequences), [tokens] each, and where each piece lies. The wanted `rows` [n] are distinct token numbers;
    target j reads row `rows[which[j]]` and token `targets[j]`; `cuts` says which run of targets is whose:
    (trial, example, candidate, start, stop)."""

    ids: NDArray[np.int32]
    positions: NDArray[np.int64]
    branches: NDArray[np.int32]
    spans: tuple[tuple[int, int], ...]
    rows: NDArray[np.int64]
    which: NDArray[np.int64]
    targets: NDArray[np.int64]
    cuts: tuple[tuple[int, int, int, int, int], ...]


def lay(trials: Sequence[Trial], wave: Wave) -> Laid:
    """Lay out a wave and collect its scored positions; a row that several candidates read is listed once."""
    ids: list[NDArray[np.int32]] = []
    starts: list[int] = []  # the position of the first token of each run in `ids`
    branches: list[int] = []
    spans: list[tuple[int, int]] = []
    rows: list[NDArray[np.int64]] = []
    targets: list[NDArray[np.int32]] = []
    cuts: list[tuple[int, int, int, int, int]] = []
    at = done = 0
    for piece in wave.pieces:
        example = trials[piece.trial].examples[piece.example]
        spans.append((at, at + piece.tokens))
        # From which position on a sequence is its own, and the row of the wave that its position 0 would have there.
        fork = example.shared if len(piece.sequences) > 1 else example.start
        common = at - example.start
        if fork > example.start:
            ids.append(example.sequences[piece.sequences[0]][example.start : fork])
            starts.append(example.start)
            branches.append(0)
            at += fork - example.start
        for branch, s in enumerate(piece.sequences, start=1):
            ids.append(example.sequences[s][fork:])
            starts.append(fork)
            branches.append(branch)
            own = at - fork
            at += len(ids[-1])
            for c, candidate in enumerate(example.candidates):
                if candidate.sequence == s:
                    positions = candidate.positions.astype(np.int64)
                    rows.append(positions + np.where(positions < fork, common, own))
                    targets.append(candidate.targets)
                    cuts.append((piece.trial, piece.example, c, done, done + len(candidate.targets)))
                    done += len(candidate.targets)
    lengths = [len(x) for x in ids]
    ends = np.cumsum(lengths)
    first = np.array(starts, np.int64) - (ends - lengths)
    distinct, which = np.unique(_joined(rows), return_inverse=True)
    return Laid(
        ids=np.concatenate(ids),
        positions=np.arange(at, dtype=np.int64) + np.repeat(first, lengths),
        branches=np.repeat(np.array(branches, np.int32), lengths),
        spans=tuple(spans),
        rows=distinct,
        which=which.astype(np.int64),
        targets=_joined(targets).astype(np.int64),
        cuts=tuple(cuts),
    )


def _joined(parts: Sequence[NDArray[np.int64]] | Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, np.int64), *parts])
