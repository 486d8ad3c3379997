"""What a single JSON value of a row may be: text, shallow, sendable. Knows no row."""

import json
from typing import Any, Final, NoReturn

from db.contract.rows.jsonl import BadRow, kind

# Far below where the JSON reader itself gives up, which depends on how deep its caller stands: what one process has
# read, every other reads.
DEEPEST: Final = 64


def text(value: object, line: int, path: str) -> str:
    """`value`, which must be a string of whole characters. Raises BadRow."""
    if not isinstance(value, str):
        raise BadRow(line, f"{path} must be a string, not {kind(value)}", path)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            _surrogate(line, path)
    return value


def shallow(value: object, line: int, path: str) -> None:
    """Raises BadRow where arrays and objects are nested more than DEEPEST deep."""
    level = [value]
    for _ in range(DEEPEST):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return
    raise BadRow(line, f"{path} is nested more than {DEEPEST} deep", path)


def _children(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def sendable(value: object, line: int, path: str) -> None:
    """Raises BadRow where `value` cannot be written as JSON and UTF-8 again, as a chat template would."""
    shallow(value, line, path)
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        _surrogate(line, path)
    except ValueError as error:
        raise BadRow(line, f"{path} holds a number that is too large", path) from error


def _surrogate(line: int, path: str) -> NoReturn:
    raise BadRow(line, f"{path} holds half of a surrogate pair (\\ud800 to \\udfff), which is not text", path)


def short(value: str) -> str:
    """As it is quoted in a sentence."""
    return repr(value if len(value) <= 40 else value[:40] + "…")


def plain(value: str) -> str:
    """As it travels in an answer, which must be text, even where the key is not."""
    return value[:40].encode("utf-8", "backslashreplace").decode()


def empty(value: object) -> bool:
    """null, or nothing in it: what carries no meaning wherever it stands."""
    return value is None or value in ("", [], {})
