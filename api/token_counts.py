"""Scored tokens of every row of a file under a model: counted once, remembered by content. Knows no job and no SQL."""

from array import array
from collections import OrderedDict
from collections.abc import Generator, Iterable
from threading import Lock

from db.contract.acting import Counted, Ids
from db.contract.pricing import Counts
from db.contract.rows.formats import Row
from db.contract.rows.jsonl import BadRow
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import encode_rows
from db.contract.tokens.invocation import Tail, joined

RULES = 1  # raise it where rows come to other tokens than before: counts that were kept are not asked then
Key = tuple[str, str, Ids]  # the file's SHA-256, the model, the ids an adapter acts from


class TokenCounts:
    """The last `capacity` answers, eight bytes a row; a row that cannot be is an answer too."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._lock = capacity, Lock()
        self._known: OrderedDict[Key, Counted | BadRow] = OrderedDict()

    def get(self, key: Key) -> Counted | BadRow | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: Key, counted: Counted | BadRow) -> None:
        with self._lock:
            self._known[key] = counted
            self._known.move_to_end(key)
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)


def counting(base: Base, rows: Iterable[Row], invocation: Ids = ()) -> Generator[None, None, Counted | BadRow]:
    """Counts a file in one pass, and yields at every row; returns the counts, or its first row that is none, or that
    the model cannot be trained on: longer than its context, or without the invocation."""
    visit, once, targets, tail = array("I"), array("I"), 0, Tail(())
    try:
        for line, row in enumerate(encode_rows(base, rows, invocation), start=1):
            visit.append(row.tokens)
            once.append(row.prompt)
            targets += sum(len(scored) for _, _, scored in row.candidates)
            tail = joined(tail if line > 1 else None, base, row, line)
            yield
    except BadRow as error:
        return BadRow(error.line, error.reason, error.param)  # without the frames it passed, which hold the rows
    return Counted(Counts(visit, once), targets, tail)
