"""Lines of JSON from a stream of bytes: limits on size, encoding and nesting. Knows nothing of what rows mean."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

MARK: Final = b"\xef\xbb\xbf"  # the byte-order mark of UTF-8, which some editors put before a file and Azure asks for
CLIPPED: Final = 150  # characters of a reason, where several are told
ONE_A_LINE: Final = "JSONL has one object a line"


class BadRow(ValueError):
    """A line that cannot be taken: `line` counts from 1, `param` is the path inside the row where there is one."""

    def __init__(self, line: int, reason: str, param: str | None = None) -> None:
        super().__init__(f"Line {line}: {reason}")
        self.line, self.reason, self.param = line, reason, param


class BadFile(BadRow):
    """What is wrong is the file as a whole, as seen at `line`: it makes no sense to read on."""


class BadRows(BadRow):
    """Several bad rows of a file: `first` of them, in order, of `count` in all, or of at least so many."""

    def __init__(self, first: Sequence[BadRow], count: int, whole: bool = True) -> None:
        same: dict[str, list[int]] = {}
        for row in first:
            reason = row.reason if len(row.reason) <= CLIPPED else row.reason[:CLIPPED] + "…"
            same.setdefault(reason, []).append(row.line)
        told = [_told(reason, at, name=i > 0) for i, (reason, at) in enumerate(same.items())]
        super().__init__(first[0].line, f"{'; '.join(told)}. {'' if whole else 'At least '}{count} rows are bad")
        self.first, self.count = tuple(first), count


def _told(reason: str, at: list[int], name: bool) -> str:
    also = (
        f" (so are lines {', '.join(map(str, at[1:]))})" if len(at) > 2 else f" (so is line {at[1]})" if at[1:] else ""
    )
    return f"{f'line {at[0]}: ' if name else ''}{reason}{also}"


@dataclass(frozen=True)
class Limits:
    """What a file may be. Bytes count without the newline for a line, with everything for a file."""

    max_line_bytes: int = 1 << 20
    max_file_bytes: int = 512 << 20
    max_rows: int = 1_000_000
    max_choices: int = 64
    max_messages: int = 1024


def lines(chunks: Iterable[bytes], limits: Limits) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line) of every line that is not blank, without the file's byte-order mark. Holds one line
    and one chunk at most.

    Raises BadFile for a line or file over its limit and for a blank line that another line follows.
    """
    blank = 0
    for number, line in enumerate(_split(chunks, limits), start=1):
        if number == 1:
            line = line.removeprefix(MARK)
        if not line or line.isspace():
            blank = blank or number
            continue
        if blank:
            raise BadFile(blank, "the line is blank: blank lines are allowed at the end of the file only")
        if number > limits.max_rows:
            raise BadFile(number, f"the file has more than {limits.max_rows} rows")
        yield number, line


def _split(chunks: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    rest, number, size = bytearray(), 1, 0
    for chunk in chunks:
        size += len(chunk)
        if size > limits.max_file_bytes:
            raise BadFile(number, f"the file is larger than {limits.max_file_bytes} bytes")
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            if len(rest) + end - start > limits.max_line_bytes:
                _too_long(number, limits, bytes(rest[:8]) + chunk[start : start + 8])
            yield bytes(rest) + chunk[start:end]
            rest.clear()
            start, number = end + 1, number + 1
        if len(rest) + len(chunk) - start > limits.max_line_bytes:
            _too_long(number, limits, bytes(rest[:8]) + chunk[start : start + 8])
        rest += memoryview(chunk)[start:]
    if rest:
        yield bytes(rest)


def _too_long(number: int, limits: Limits, head: bytes) -> NoReturn:
    array = f": {_ARRAY}" if number == 1 and _opens(head, b"[") else ""
    raise BadFile(number, f"the line is longer than {limits.max_line_bytes} bytes{array}")


_ARRAY: Final = f"{ONE_A_LINE}, without [ and ] around them and commas between (`onward files convert` makes it so)"


def _opens(line: bytes, bracket: bytes) -> bool:
    return line.removeprefix(MARK).lstrip().startswith(bracket)


def misshapen(line: bytes, error: BadRow) -> BadFile | None:
    """What the file is where its first line is not one object: a JSON array, or objects printed over several lines."""
    if _opens(line, b"["):
        return BadFile(error.line, f"must be a JSON object, not an array: {_ARRAY}")
    cause = error.__cause__
    if not _opens(line, b"{") or not isinstance(cause, json.JSONDecodeError) or cause.pos < len(cause.doc.rstrip()):
        return None
    more = "which does not end on its line (`onward files convert` makes it so)"
    return BadFile(error.line, f"not valid JSON: {ONE_A_LINE}, and this is the beginning of one {more}")


def parse_object(line: bytes, number: int) -> dict[str, Any]:
    """The JSON object on one line. Raises BadRow for bad UTF-8, bad JSON, a repeated key, or anything but an object."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        wide = " (it looks like UTF-16: save the file as UTF-8)" if line[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise BadRow(number, f"not valid UTF-8 at byte {error.start + 1} of the line{wide}") from error
    if text.startswith("\ufeff"):
        raise BadRow(number, "begins with a byte-order mark, which may stand at the start of the file only")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadRow(number, f"not valid JSON at column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise BadRow(number, "the JSON is nested too deeply") from error
    except ValueError as error:
        raise BadRow(number, f"not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRow(number, f"must be a JSON object, not {kind(value)}")
    return value


def kind(value: object) -> str:
    """What JSON calls a value, with its article."""
    names = {
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "null")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:40]!r} is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    if len(digits) > 32:
        raise ValueError("a number has more than 32 digits")
    return int(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer)
