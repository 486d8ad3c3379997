"""Which sequences share a forward pass. Knows trials; no engine, no adapter maths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from worker.types import Example, Trial


@dataclass(frozen=True)
class Piece:
    """Sequences of one example under one trial, laid end to end from the example's `start` on: what they have in common
    once, then what each adds. `number` is the example's in its trial, `tokens` are those laid."""

    number: int
    example: Example
    sequences: tuple[int, ...]
    tokens: int


@dataclass(frozen=True)
class Segment:
    """Consecutive pieces of one trial, the call's `number`-th, within a wave."""

    number: int
    trial: Trial
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Wave:
    """One forward pass: segments laid end to end without padding. In a `branched` one pieces continue a prompt that was
    computed before, or hold several sequences; in any other every piece is one whole sequence. No adapter acts on the
    first `below` layers. In one of `drift` all trials ask for it."""

    segments: tuple[Segment, ...]
    branched: bool = False
    below: int = 0
    drift: bool = False

    @property
    def tokens(self) -> int:
        return sum(piece.tokens for segment in self.segments for piece in segment.pieces)


def waves(trials: Sequence[Trial], slots: int, max_tokens: int, max_prompts: int = 1 << 62) -> list[Wave]:
    """Pack every sequence of every trial into as few waves as a greedy pass makes: whole sequences first, then what
    branches, each in order.

    A wave holds at most `slots` distinct adapters, `max_tokens` tokens and distinct prompts of `max_prompts` tokens; a
    piece beyond that has a wave to itself. A trial that does not fit is continued in the next wave. Adapters of one
    wave begin at one layer, so that none pays for layers that another acts on, and who is compared with the base is not
    among those who are not.
    """
    branching = [any(e.start or e.shared for e in t.examples) for t in trials]
    kinds = [(t.below, t.drift) for t in trials]
    out: list[Wave] = []
    for kind in sorted(set(kinds)):
        whole = _Packer(slots, max_tokens, max_prompts, False, *kind)
        for number, trial in enumerate(trials):
            if not branching[number] and kinds[number] == kind:
                whole.add(number, trial, range(len(trial.examples)))
        out += whole.closed()
    for kind in sorted(set(kinds)):
        branched = _Packer(slots, max_tokens, max_prompts, True, *kind)
        mine = [n for n in range(len(trials)) if branching[n] and kinds[n] == kind]
        for number, examples in _rounds(trials, mine, max_prompts):
            branched.add(number, trials[number], examples)
        out += branched.closed()
    return out


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
    below: int
    drift: bool
    waves: list[Wave] = field(default_factory=list)
    open: list[tuple[int, Trial, list[Piece]]] = field(default_factory=list)
    tokens: int = 0
    adapters: int = 0
    prompts: dict[bytes, int] = field(default_factory=dict)

    def add(self, number: int, trial: Trial, examples: range) -> None:
        for e in examples:
            example = trial.examples[e]
            for piece in _pieces(e, example, self.max_tokens):
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
                    self.open.append((number, trial, []))
                    self.adapters += trial.params is not None
                self.open[-1][2].append(piece)
                self.tokens += piece.tokens
                if example.start:
                    self.prompts[example.prompt_key] = example.start

    def closed(self) -> list[Wave]:
        """Every wave so far, the one begun included."""
        if self.open:
            segments = tuple(Segment(number, trial, tuple(pieces)) for number, trial, pieces in self.open)
            self.waves.append(Wave(segments, self.branched, self.below, self.drift))
        self.open, self.tokens, self.adapters, self.prompts = [], 0, 0, {}
        return self.waves


def _pieces(number: int, example: Example, max_tokens: int) -> Iterator[Piece]:
    """The example in one piece, or in as many as it takes for each to fit a wave; sequences without common tokens
    apart."""
    if not example.shared:
        for s, sequence in enumerate(example.sequences):
            yield Piece(number, example, (s,), len(sequence) - example.start)
        return
    common = example.shared - example.start
    chosen: list[int] = []
    tokens = common
    for s, sequence in enumerate(example.sequences):
        own = len(sequence) - example.shared
        if chosen and tokens + own > max_tokens:
            yield Piece(number, example, tuple(chosen), tokens)
            chosen, tokens = [], common
        chosen.append(s)
        tokens += own
    yield Piece(number, example, tuple(chosen), tokens)
