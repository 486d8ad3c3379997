"""Bytes that are put into a store before the transaction that names them. Knows no file's row."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.ids import new_id
from db.store import seam
from db.store.opening import Stores
from db.store.seam import StoreAway
from db.tables import Installation

CHUNK_BYTES = 2**20
Begin = Callable[[], AbstractContextManager[Session]]  # one transaction in the tenant's name


@dataclass(frozen=True)
class Deposited:
    """Bytes that lie in `store` and wait for their row."""

    store: str
    file_id: str
    bytes: int
    sha256: str


@contextmanager
def deposited(
    tenant: str, stores: Stores | None, begin: Begin, chunks: Iterable[bytes]
) -> Iterator[Iterable[bytes] | Deposited]:
    """What `files.create` takes as `chunks`: these themselves where new files go to the database, else what says that
    they lie in the store already, which no transaction waits for. Where the row is not committed they go again, now or
    by the sweep. Raises StoreAway, and ValueError when there is not one byte."""
    name = stores.writes if stores is not None else None
    if stores is None or name is None:
        yield chunks
        return
    with begin() as session:
        installation = session.scalars(select(Installation.id)).one()
    lying = _put(stores, name, installation, tenant, chunks)
    try:
        yield lying
    except SQLAlchemyError:
        raise  # the row may be committed all the same, where only the answer was lost: the sweep will know
    except BaseException:
        with suppress(StoreAway):
            stores.at(name).delete(seam.key(tenant, lying.file_id))
        raise


def _put(stores: Stores, name: str, installation: str, tenant: str, chunks: Iterable[bytes]) -> Deposited:
    file_id, digest, size = new_id("file-"), hashlib.sha256(), 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for piece in regular(chunks):
            digest.update(piece)
            size += len(piece)
            yield piece

    pieces = counted()
    first = next(pieces, None)
    if first is None:
        raise ValueError("a file cannot be empty")
    store = stores.at(name)
    seam.mark(store, installation)
    store.put(seam.key(tenant, file_id), chain([first], pieces))
    return Deposited(name, file_id, size, digest.hexdigest())


def regular(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, CHUNK_BYTES at a time: where a chunk of a file begins follows from its number."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        whole = len(held) - len(held) % CHUNK_BYTES
        for start in range(0, whole, CHUNK_BYTES):
            yield bytes(held[start : start + CHUNK_BYTES])
        del held[:whole]
    if held:
        yield bytes(held)
