"""Lines of JSON from a stream of bytes: limits on size, encoding and nesting. Knows nothing of what rows mean."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn


class BadRow(ValueError):
    """A line that cannot be taken: `line` counts from 1, `param` is the path inside the row where there is one."""

    def __init__(self, line: int, reason: str, param: str | None = None) -> None:
        super().__init__(f"Line {line}: {reason}")
        self.line, self.reason, self.param = line, reason, param


@dataclass(frozen=True)
class Limits:
    """What a file may be. Bytes count without the newline for a line, with everything for a file."""

    max_line_bytes: int = 1 << 20
    max_file_bytes: int = 512 << 20
    max_rows: int = 1_000_000
    max_choices: int = 64
    max_messages: int = 1024


def lines(chunks: Iterable[bytes], limits: Limits) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line) of every line that is not blank. Holds one line and one chunk at most.

    Raises BadRow for a line or file over its limit and for a blank line that another line follows.
    """
    blank = 0
    for number, line in enumerate(_split(chunks, limits), start=1):
        if not line or line.isspace():
            blank = blank or number
            continue
        if blank:
            raise BadRow(blank, "the line is blank: blank lines are allowed at the end of the file only")
        if number > limits.max_rows:
            raise BadRow(number, f"the file has more than {limits.max_rows} rows")
        yield number, line


def _split(chunks: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    rest, number, size = bytearray(), 1, 0
    for chunk in chunks:
        size += len(chunk)
        if size > limits.max_file_bytes:
            raise BadRow(number, f"the file is larger than {limits.max_file_bytes} bytes")
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            if len(rest) + end - start > limits.max_line_bytes:
                _too_long(number, limits)
            yield bytes(rest) + chunk[start:end]
            rest.clear()
            start, number = end + 1, number + 1
        if len(rest) + len(chunk) - start > limits.max_line_bytes:
            _too_long(number, limits)
        rest += memoryview(chunk)[start:]
    if rest:
        yield bytes(rest)


def _too_long(number: int, limits: Limits) -> NoReturn:
    raise BadRow(number, f"the line is longer than {limits.max_line_bytes} bytes")


def parse_object(line: bytes, number: int) -> dict[str, Any]:
    """The JSON object on one line. Raises BadRow for bad UTF-8, bad JSON, a repeated key, or anything but an object."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(number, f"not valid UTF-8 at byte {error.start + 1} of the line") from error
    if text.startswith("\ufeff"):
        raise BadRow(number, "begins with a byte-order mark: save the file as UTF-8 without one")
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


_KINDS: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
}


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
