"""Token counts of a tenant's files, kept until a file's bytes go: to count one takes minutes. Knows no row."""

import sys
import zlib
from array import array
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db.contract.acting import Counted, Ids
from db.contract.pricing import Counts
from db.contract.tokens.invocation import Tail
from db.tables import TokenCount


def get(tenant: str, session: Session, file_id: str, base: str, invocation: Ids) -> Counted | None:
    """What the file came to under the base whose fingerprint is `base`."""
    key = TokenCount.file_id == file_id, TokenCount.base == base, TokenCount.invocation == _spelled(invocation)
    row = session.scalar(select(TokenCount).where(TokenCount.tenant_id == tenant, *key))
    if row is None:
        return None
    ids, other, before = (tuple(row.tail[name]) for name in ("ids", "other", "before"))
    tail = Tail(ids, row.tail["line"], other, before)
    return Counted(Counts(_unpacked(row.visit), _unpacked(row.once)), row.targets, tail)


def put(tenant: str, session: Session, file_id: str, base: str, invocation: Ids, counted: Counted) -> None:
    """Keeps it; whoever was first is right."""
    tail = {
        "ids": counted.tail.ids,
        "line": counted.tail.line,
        "other": counted.tail.other,
        "before": counted.tail.before,
    }
    values: dict[str, Any] = {
        "file_id": file_id,
        "base": base,
        "invocation": _spelled(invocation),
        "tenant_id": tenant,
        "tail": tail,
    }
    values |= {"visit": _packed(counted.counts.visit), "once": _packed(counted.counts.once), "targets": counted.targets}
    session.execute(insert(TokenCount).values(values).on_conflict_do_nothing())


def _spelled(invocation: Ids) -> str:
    return ",".join(map(str, invocation))


def _packed(counts: Sequence[int]) -> bytes:
    return zlib.compress(_little(array("I", counts)).tobytes())


def _unpacked(packed: bytes) -> "array[int]":
    counts = array("I")
    counts.frombytes(zlib.decompress(packed))
    return _little(counts)


def _little(counts: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        counts.byteswap()
    return counts
