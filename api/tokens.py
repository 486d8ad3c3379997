"""Scored tokens of every row of a file under a model: counted once, remembered by content. Knows no job and no SQL."""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock

from db.bases import Base
from db.encoding import encode_rows
from db.rows import Row

Key = tuple[str, str]  # the file's SHA-256, the model


class TokenCounts:
    """The last `capacity` answers, four bytes a row. Two requests may count one file at once; both are right."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._lock = capacity, Lock()
        self._known: OrderedDict[Key, Sequence[int]] = OrderedDict()

    def get(self, key: Key) -> Sequence[int] | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: Key, counts: Sequence[int]) -> None:
        with self._lock:
            self._known[key] = counts
            self._known.move_to_end(key)
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)


def count(base: Base, rows: Iterable[Row]) -> Sequence[int]:
    """Forwarded tokens of each row [rows]. Raises BadRow with the line of a row that the model cannot be trained on,
    as one longer than its context."""
    return array("I", (encoded.tokens for encoded in encode_rows(base, rows)))
