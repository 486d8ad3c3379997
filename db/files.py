"""Files as chunks of rows. Every tenant-facing function takes the tenant first; a foreign id is an unknown id."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal

from sqlalchemy import ColumnElement, Select, func, insert, select, tuple_
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from db.ids import UnknownCursor, new_id
from db.tables import File, FileChunk, Job, TokenCount

CHUNK_BYTES = 2**20
Order = Literal["asc", "desc"]


def create(
    tenant: str,
    session: Session,
    *,
    filename: str,
    purpose: str,
    format: str | None,
    rows: int,
    chunks: Iterable[bytes],
) -> File:
    """Stores `chunks` (of any size; kept in pieces of at most 1 MiB) without holding them all in memory.

    Computes size and SHA-256. Raises ValueError when there is not one byte.
    """
    file_id, digest, size = new_id("file-"), hashlib.sha256(), 0
    # The foreign key of chunks is deferred, so that the file's row can be written last, when its size is known.
    for number, piece in enumerate(_pieces(chunks)):
        digest.update(piece)
        size += len(piece)
        session.execute(insert(FileChunk).values(file_id=file_id, number=number, tenant_id=tenant, data=piece))
    if size == 0:
        raise ValueError("a file cannot be empty")
    file = File(
        id=file_id,
        tenant_id=tenant,
        purpose=purpose,
        filename=filename,
        format=format,
        bytes=size,
        rows=rows,
        sha256=digest.hexdigest(),
    )
    session.add(file)
    session.flush()
    return file


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


def chunk(tenant: str, session: Session, file_id: str, number: int) -> bytes | None:
    """The file's `number`-th piece, from 0; None past the last, and of a file that is not the tenant's."""
    mine = select(File.id).where(*_visible(tenant), File.id == file_id).exists()
    return session.scalar(_chunk(file_id, number).where(mine))


def read(session: Session, file_id: str) -> Iterator[bytes]:
    """The chunks of any file, deleted or not. For callers that have checked the right to it."""
    number = 0
    while (piece := session.scalar(_chunk(file_id, number))) is not None:
        yield piece
        number += 1


def piece(session: Session, file_id: str, number: int) -> bytes | None:
    """The `number`-th piece of any file, deleted or not. For callers that have checked the right to it."""
    return session.scalar(_chunk(file_id, number))


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
    """Drops the bytes of those of `file_ids` that are deleted and that no job needs any more."""
    unended = Job.tenant_id == File.tenant_id, Job.finished_at.is_(None)
    training = select(Job.id).where(Job.training_file == File.id, *unended)
    held_out = select(Job.id).where(Job.validation_file == File.id, *unended)
    deleted = File.id.in_(list(file_ids)), File.deleted_at.is_not(None)
    unneeded = select(File.id).where(*deleted, ~training.exists(), ~held_out.exists())
    session.execute(delete_rows(FileChunk).where(FileChunk.file_id.in_(unneeded)))
    session.execute(delete_rows(TokenCount).where(TokenCount.file_id.in_(unneeded)))


def _visible(tenant: str) -> tuple[ColumnElement[bool], ...]:
    return File.tenant_id == tenant, File.deleted_at.is_(None)


def _chunk(file_id: str, number: int) -> Select[bytes]:
    return select(FileChunk.data).where(FileChunk.file_id == file_id, FileChunk.number == number)


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield chunk[start : start + CHUNK_BYTES]
