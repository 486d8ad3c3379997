"""A training file's first rows as tokens of a base model: which are learned, and from where an adapter acts. Pure, but
for the base's small files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from db.contract.rows.files import parse
from db.contract.rows.formats import Row
from db.contract.rows.jsonl import Limits
from db.contract.tokens.base_model import Base, NamesModels, UnknownBase, UnusableBase, load
from db.contract.tokens.encoding import Encoded, Unencodable, decoded, encode
from db.contract.tokens.invocation import Tail, joined

ROWS: Final = 20
BYTES: Final = 64 << 10  # of a file's beginning: what is tokenised inside of a request, whatever its rows are


@dataclass(frozen=True)
class Token:
    """A token's text; whether it is scored as an answer, and whether the adapter acts on it."""

    text: str
    learned: bool
    acts: bool


@dataclass(frozen=True)
class Line:
    """A row by its number in the file: its sequences in tokens, or why the base model cannot be trained on it."""

    number: int
    sequences: tuple[tuple[Token, ...], ...] = ()
    wrong: str | None = None
    tokens: int = 0  # scored, a visit


@dataclass(frozen=True)
class Shown:
    """The rows that were looked at. `invocation` is the text that switches an adapter of activation `answer` on, None
    where the rows' prompts have no end in common, or where it was not asked for."""

    lines: tuple[Line, ...] = ()
    invocation: str | None = None
    wrong: str | None = None


def preview(start: bytes, size: int, limits: Limits, model: str | None, acts: str, settings: NamesModels) -> Shown:
    """The rows that a file of `size` bytes begins with, of `start` those that are whole, under a base model, for an
    adapter that acts on `all` tokens or from the `answer`'s invocation on."""
    whole = start if len(start) == size else start[: start.rfind(b"\n") + 1]
    if not whole:
        return Shown(wrong=f"The first row alone is longer than {BYTES:,} bytes: it is not shown.")
    rows = list(islice(parse([whole], limits), ROWS))
    try:
        base = load(model or "", settings)
    except (UnknownBase, UnusableBase) as error:
        return Shown(wrong=f"The base model cannot be read: {error}")
    invocation = _invocation(base, rows) if acts == "answer" else ()
    lines = tuple(_line(base, row, invocation, number) for number, row in enumerate(rows, start=1))
    return Shown(lines, decoded(base, invocation) if invocation else None)


def _invocation(base: Base, rows: Sequence[Row]) -> tuple[int, ...]:
    """What the prompts of these rows end in, as a job's invocation is chosen."""
    tail: Tail | None = None
    for number, row in enumerate(rows, start=1):
        try:
            tail = joined(tail, base, encode(base, row), number)
        except Unencodable:
            continue
    return tail.ids if tail is not None else ()


def _line(base: Base, row: Row, invocation: tuple[int, ...], number: int) -> Line:
    try:
        encoded = encode(base, row, invocation)
    except Unencodable as error:
        return Line(number, wrong=error.reason)
    return Line(number, tuple(_sequences(base, encoded)), tokens=encoded.tokens)


def _sequences(base: Base, row: Encoded) -> Iterator[tuple[Token, ...]]:
    for index, ids in enumerate(row.sequences):
        learned: dict[int, int] = {}
        # Choices of one token share their sequence: the right one is shown.
        for sequence, positions, targets in (*row.candidates, row.candidates[row.label]):
            if sequence == index:
                learned |= {position + 1: target for position, target in zip(positions, targets, strict=True)}
        whole = [*ids, *(target for at, target in sorted(learned.items()) if at >= len(ids))]
        yield tuple(Token(decoded(base, (token,)), at in learned, at >= row.start) for at, token in enumerate(whole))
