"""Training files as tenants send them: JSONL checked while it streams, one format a file. Knows no model."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from db.contract.rows.building import build, unfit
from db.contract.rows.formats import Chat, Choice, Format, Row
from db.contract.rows.jsonl import BadFile, BadRow, BadRows, Limits, lines, misshapen, parse_object

TOLD: Final = 5  # bad rows, of all that are counted
EMPTY: Final = "the file is empty: at least one row is needed"


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
    """Validates a whole new file from its chunks, holding one line at most. Raises BadRow, or BadRows with the first
    TOLD of several and the count of all."""
    digest, size, kind = hashlib.sha256(), 0, None
    bad: list[BadRow] = []
    count, whole = 0, True
    seen = array("Q")

    def counted() -> Iterator[bytes]:
        nonlocal size
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            yield chunk

    for line, found in read(counted(), limits or Limits()):
        wrong = found if isinstance(found, BadRow) else _unfit(found, line)
        if wrong is not None:
            count, whole = count + 1, not isinstance(wrong, BadFile)
            bad += [wrong][: TOLD - len(bad)]
        elif not isinstance(found, BadRow):
            kind = format_of(found)
            seen.append(int.from_bytes(hashlib.blake2b(repr(found).encode(), digest_size=8).digest()))
    if count > 1:
        raise BadRows(bad, count, whole)
    if bad:
        raise bad[0]
    if kind is None:
        raise BadRow(1, EMPTY)
    repeated = len(seen) - len(np.unique(np.frombuffer(seen, np.uint64)))
    return Report(kind, len(seen), size, digest.hexdigest(), repeated)


def _unfit(row: Row, line: int) -> BadRow | None:
    try:
        unfit(row, line)
    except BadRow as error:
        return _bare(error)
    return None


def parse(chunks: Iterable[bytes], limits: Limits | None = None) -> Iterator[Row]:
    """The rows of a file, in order: row i (from 0) is line i + 1, since blank lines are allowed at the end only.

    Raises BadRow(line, reason, param) at the first line that is not a good row of the first row's format.
    """
    empty = True
    for _, found in read(chunks, limits or Limits()):
        if isinstance(found, BadRow):
            raise found
        empty = False
        yield found
    if empty:
        raise BadRow(1, EMPTY)


def read(chunks: Iterable[bytes], limits: Limits) -> Iterator[tuple[int, Row | BadRow]]:
    """(line, row) of every line, with what is wrong in the place of a row that is none; nothing follows a BadFile."""
    kind: Format | None = None
    try:
        for number, line in lines(chunks, limits):
            try:
                row = build(_object(line, number), number, limits)
                if kind is not None and format_of(row) != kind:
                    said = f"this row is of format {format_of(row)}, the rows before it are {kind}"
                    raise BadRow(number, said)
            except BadFile:
                raise
            except BadRow as error:
                yield number, _bare(error)
                continue
            kind = format_of(row)
            yield number, row
    except BadFile as error:
        yield error.line, _bare(error)


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        return parse_object(line, number)
    except BadRow as error:
        shape = misshapen(line, error) if number == 1 else None
        raise (shape or error) from error


def _bare(error: BadRow) -> BadRow:
    """Without the frames it passed, which hold the line and the row."""
    return type(error)(error.line, error.reason, error.param)


def format_of(row: Row) -> Format:
    return "chat" if isinstance(row, Chat) else "choice" if isinstance(row, Choice) else "completion"
