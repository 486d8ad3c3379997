"""Training files as tenants send them: JSONL checked while it streams, one format a file. Knows no model."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from db.contract.rows.formats import Chat, Choice, Format, Row, build
from db.contract.rows.jsonl import BadRow, Limits, lines, parse_object


@dataclass(frozen=True)
class Report:
    """What a good file is: its format, its rows, its bytes and their SHA-256 in hexadecimal. `repeated` of its rows say
    what an earlier one says, however it is written."""

    format: Format
    rows: int
    bytes: int
    sha256: str
    repeated: int


def check(chunks: Iterable[bytes], limits: Limits | None = None) -> Report:
    """Validates a whole file from its chunks, holding one line at most. Raises BadRow at the first bad line."""
    digest, size, kind = hashlib.sha256(), 0, None
    seen = array("Q")

    def counted() -> Iterator[bytes]:
        nonlocal size
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            yield chunk

    for row in parse(counted(), limits):
        kind = format_of(row)
        seen.append(int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=8).digest()))
    if kind is None:  # parse has refused the empty file
        raise BadRow(1, "the file is empty: at least one row is needed", None)
    repeated = len(seen) - len(np.unique(np.frombuffer(seen, np.uint64)))
    return Report(kind, len(seen), size, digest.hexdigest(), repeated)


def parse(chunks: Iterable[bytes], limits: Limits | None = None) -> Iterator[Row]:
    """The rows of a file, in order: row i (from 0) is line i + 1, since blank lines are allowed at the end only.

    Raises BadRow(line, reason, param) at the first line that is not a good row of the first row's format.
    """
    limits = limits or Limits()
    kind: Format | None = None
    for number, line in lines(chunks, limits):
        row = build(parse_object(line, number), number, limits)
        if kind is None:
            kind = format_of(row)
        elif format_of(row) != kind:
            raise BadRow(number, f"this row is of format {format_of(row)}, the rows before it are {kind}", None)
        yield row
    if kind is None:
        raise BadRow(1, "the file is empty: at least one row is needed", None)


def format_of(row: Row) -> Format:
    return "chat" if isinstance(row, Chat) else "choice" if isinstance(row, Choice) else "completion"
