"""Files: rows, and bytes that lie in chunks of rows or in a store that the row names.

Every tenant-facing function takes the tenant first; a foreign id is an unknown id."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, func, insert, select, text, tuple_
from sqlalchemy import delete as delete_rows
from sqlalchemy.dialects.postgresql import insert as insert_new
from sqlalchemy.orm import Session

from db.deposits import CHUNK_BYTES, Begin, Deposited, regular
from db.ids import UnknownCursor, new_id
from db.store import opening, seam
from db.store.seam import ObjectLost
from db.tables import Doomed, File, FileChunk, Job, TokenCount

Order = Literal["asc", "desc"]


def create(
    tenant: str,
    session: Session,
    *,
    filename: str,
    purpose: str,
    format: str | None,
    rows: int,
    chunks: Iterable[bytes] | Deposited,
    repeated_rows: int | None = None,
) -> File:
    """Stores `chunks` (of any size; kept in pieces of 1 MiB) without holding them all in memory; of what was
    deposited only the row.

    Computes size and SHA-256. Raises ValueError when there is not one byte.
    """
    about = {"purpose": purpose, "filename": filename, "format": format, "rows": rows, "repeated_rows": repeated_rows}
    file = File(
        tenant_id=tenant,
        **about,
        **(_lying(chunks) if isinstance(chunks, Deposited) else _kept(tenant, session, chunks)),
    )
    session.add(file)
    session.flush()
    return file


def _lying(there: Deposited) -> dict[str, Any]:
    return {"id": there.file_id, "bytes": there.bytes, "sha256": there.sha256, "store": there.store}


def _kept(tenant: str, session: Session, chunks: Iterable[bytes]) -> dict[str, Any]:
    """`chunks` as rows, and what the file's row says of them."""
    file_id, digest, size = new_id("file-"), hashlib.sha256(), 0
    # The foreign key of chunks is deferred, so that the file's row can be written last, when its size is known.
    for number, piece in enumerate(regular(chunks)):
        digest.update(piece)
        size += len(piece)
        session.execute(insert(FileChunk).values(file_id=file_id, number=number, tenant_id=tenant, data=piece))
    if size == 0:
        raise ValueError("a file cannot be empty")
    return {"id": file_id, "bytes": size, "sha256": digest.hexdigest()}


def get(tenant: str, session: Session, file_id: str) -> File | None:
    """The tenant's file, unless it was deleted."""
    return session.scalar(select(File).where(*_visible(tenant), File.id == file_id))


def page(
    tenant: str,
    session: Session,
    *,
    after: str | None = None,
    limit: int = 20,
    purpose: str | None = None,
    order: Order = "desc",
) -> tuple[list[File], bool]:
    """Up to `limit` files after the file `after`, by creation, and whether more follow. Raises UnknownCursor."""
    wanted = select(File).where(*_visible(tenant))
    if purpose is not None:
        wanted = wanted.where(File.purpose == purpose)
    if after is not None:
        # A deleted file still marks its place, so paging does not break when a tenant deletes as it lists.
        start = select(File.created_at, File.id).where(File.tenant_id == tenant, File.id == after)
        if session.execute(start).first() is None:
            raise UnknownCursor(after)
        key = tuple_(File.created_at, File.id)
        wanted = wanted.where(key > start.scalar_subquery() if order == "asc" else key < start.scalar_subquery())
    columns = (File.created_at, File.id)
    wanted = wanted.order_by(*(c.asc() if order == "asc" else c.desc() for c in columns)).limit(limit + 1)
    found = list(session.scalars(wanted))
    return found[:limit], len(found) > limit


def content(tenant: str, session: Session, file_id: str) -> Iterator[bytes] | None:
    """The file's bytes in chunks, read as they are asked for: the session must stay open until the last."""
    return read(session, file_id) if get(tenant, session, file_id) is not None else None


def piece(tenant: str, begin: Begin, file_id: str, start: int, deleted: bool = False) -> bytes | None:
    """Some of the file's bytes from `start` on, where a piece before ended; None past the last, and of a file that is
    not the tenant's, or no more, except where a job still reads it that is `deleted`. No transaction is open while a
    store is waited for. Raises StoreAway, ObjectLost."""
    with begin() as session:
        mine = (File.tenant_id == tenant,) if deleted else _visible(tenant)
        file = session.scalar(select(File).where(*mine, File.id == file_id))
        if file is None or start >= file.bytes:
            return None
        if file.store is None:
            return session.scalar(_chunk(file_id, start // CHUNK_BYTES))
        store = opening.of(session).at(file.store)
    return store.read(seam.key(tenant, file_id), start, min(seam.READ_BYTES, file.bytes - start))


_WORD = text("SELECT 1")  # to the database, which ends a transaction that is silent while a slow store is read


def chunk(tenant: str, session: Session, file_id: str, number: int) -> bytes | None:
    """The `number`-th piece, from 0, of a file in the database; None past the last, and of one that is not the
    tenant's."""
    mine = select(File.id).where(*_visible(tenant), File.id == file_id).exists()
    return session.scalar(_chunk(file_id, number).where(mine))


def read(session: Session, file_id: str) -> Iterator[bytes]:
    """The bytes of any file, deleted or not, in pieces. For callers that have checked the right to it. Of a file in a
    store the last is withheld where they are not what was put there. Raises StoreAway, ObjectLost."""
    file = session.get(File, file_id)
    if file is not None and file.store is not None:
        store, check = opening.of(session).at(file.store), Check(file)
        for piece in seam.whole(store, seam.key(file.tenant_id, file.id), file.bytes):
            session.execute(_WORD)
            yield check.passed(piece)
        return
    number = 0
    while (found := session.scalar(_chunk(file_id, number))) is not None:
        yield found
        number += 1


class Check:
    """Of a file's pieces in order, each as it passes; the database answers for what it keeps itself."""

    def __init__(self, file: File) -> None:
        self._file, self._digest, self._size = file, hashlib.sha256(), 0

    def passed(self, piece: bytes) -> bytes:
        """The piece. Raises ObjectLost at the last one, where size or SHA-256 are not those that were stored."""
        self._digest.update(piece)
        self._size += len(piece)
        whole = self._size >= self._file.bytes
        if whole and self._file.store is not None and self._digest.hexdigest() != self._file.sha256:
            raise ObjectLost(f"the bytes of {self._file.id} are not those that were stored")
        return piece


def delete(tenant: str, session: Session, file_id: str) -> bool:
    """Hides the file at once. Its bytes go too, unless a job that has not ended still reads them."""
    file = session.scalar(select(File).where(*_visible(tenant), File.id == file_id).with_for_update())
    if file is None:
        return False
    file.deleted_at = func.now()
    session.flush()
    purge(session, [file_id])
    return True


def purge(session: Session, file_ids: Iterable[str]) -> None:
    """Drops the bytes of those of `file_ids` that are deleted and that no job needs any more: chunks with this
    transaction, an object soon after it (`db/store_sweep.py`)."""
    unended = Job.tenant_id == File.tenant_id, Job.finished_at.is_(None)
    training = select(Job.id).where(Job.training_file == File.id, *unended)
    held_out = select(Job.id).where(Job.validation_file == File.id, *unended)
    deleted = File.id.in_(list(file_ids)), File.deleted_at.is_not(None)
    unneeded = select(File.id).where(*deleted, ~training.exists(), ~held_out.exists())
    session.execute(delete_rows(FileChunk).where(FileChunk.file_id.in_(unneeded)))
    lying = select(File.store, File.id, File.tenant_id).where(File.id.in_(unneeded), File.store.is_not(None))
    doomed = insert_new(Doomed).from_select(["store", "file_id", "tenant_id"], lying)
    session.execute(doomed.on_conflict_do_nothing())
    # No row is fetched: a worker may not read what was counted.
    counts = delete_rows(TokenCount).where(TokenCount.file_id.in_(unneeded))
    session.execute(counts.execution_options(synchronize_session=False))


def _visible(tenant: str) -> tuple[ColumnElement[bool], ...]:
    return File.tenant_id == tenant, File.deleted_at.is_(None)


def _chunk(file_id: str, number: int) -> Select[bytes]:
    return select(FileChunk.data).where(FileChunk.file_id == file_id, FileChunk.number == number)
