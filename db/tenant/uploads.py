"""Files that come in parts, as their tenant sees them: every function takes the tenant first. Knows no row's format.

The bytes of a part are a file of its own that is hidden from the day it is made: it is read and purged like others.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from sqlalchemy import ColumnElement, delete, func, literal, select
from sqlalchemy.orm import Session

from db import files
from db.ids import new_id
from db.tables import File, Upload, UploadPart

LIFE = timedelta(hours=1)


@dataclass(frozen=True)
class Part:
    """The hidden file that holds it, and its size."""

    file_id: str
    bytes: int


def create(
    tenant: str, session: Session, *, filename: str, purpose: str, size: int, expires_after: int | None
) -> Upload:
    """An upload that waits for its parts, for an hour."""
    made = Upload(
        id=new_id("upload_"), tenant_id=tenant, filename=filename, purpose=purpose, bytes=size,
        expires_after=expires_after, expires_at=func.now() + literal(LIFE),
    )  # fmt: skip
    session.add(made)
    session.flush()
    session.refresh(made)
    return made


def get(tenant: str, session: Session, upload_id: str, lock: bool = False) -> Upload | None:
    """The tenant's upload; with `lock` nobody else changes it meanwhile. One whose hour is over is `expired`, whether
    or not a sweep has come by."""
    wanted = select(Upload).where(Upload.tenant_id == tenant, Upload.id == upload_id)
    found = session.scalar(wanted.with_for_update() if lock else wanted)
    if found is not None and found.status == "pending":
        late = select(Upload.id).where(Upload.id == upload_id, Upload.expires_at < func.clock_timestamp())
        if session.scalar(late) is not None:
            end(tenant, session, upload_id, "expired")
            session.refresh(found)
    return found


def add(tenant: str, session: Session, upload_id: str, chunks: Iterable[bytes]) -> UploadPart:
    """A part of it. Raises ValueError where there is not one byte."""
    stored = files.create(tenant, session, filename="part", purpose="upload-part", format=None, rows=0, chunks=chunks)
    stored.deleted_at = func.now()
    session.flush()
    part = UploadPart(id=new_id("part_"), tenant_id=tenant, upload_id=upload_id, file_id=stored.id)
    session.add(part)
    session.flush()
    return part


def parts(tenant: str, session: Session, upload_id: str) -> dict[str, Part]:
    """Its parts by their ids."""
    wanted = select(UploadPart.id, File.id, File.bytes).join(File, UploadPart.file_id == File.id)
    return {part: Part(file, size) for part, file, size in session.execute(wanted.where(*_mine(tenant, upload_id)))}


def joined(session: Session, order: Sequence[Part]) -> Iterator[bytes]:
    """The bytes of these parts, one after the other."""
    for part in order:
        yield from files.read(session, part.file_id)


def complete(tenant: str, session: Session, upload: Upload, file: File) -> None:
    """It has become `file`; its parts go."""
    _drop(tenant, session, upload.id)
    upload.status, upload.file_id = "completed", file.id
    session.flush()


def end(tenant: str, session: Session, upload_id: str, status: Literal["cancelled", "expired"]) -> bool:
    """Where it still waits: nothing comes of it, and its parts go."""
    wanted = select(Upload).where(Upload.tenant_id == tenant, Upload.id == upload_id, Upload.status == "pending")
    found = session.scalar(wanted.with_for_update())
    if found is None:
        return False
    found.status = status
    session.flush()
    _drop(tenant, session, upload_id)
    return True


def _drop(tenant: str, session: Session, upload_id: str) -> None:
    stored = [part.file_id for part in parts(tenant, session, upload_id).values()]
    session.execute(delete(UploadPart).where(*_mine(tenant, upload_id)))
    files.purge(session, stored)


def _mine(tenant: str, upload_id: str) -> tuple[ColumnElement[bool], ...]:
    return UploadPart.tenant_id == tenant, UploadPart.upload_id == upload_id
