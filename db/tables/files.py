"""Files, kept as chunks of rows."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, now, of_tenant, one_of

PURPOSES = ("fine-tune", "fine-tune-results", "upload-part")
UPLOAD_STATES = ("pending", "completed", "cancelled", "expired")
EXPIRING = "expires_at IS NOT NULL AND deleted_at IS NULL"


class File(Base):
    __tablename__ = "files"
    id: Mapped[str] = mapped_column(primary_key=True)  # file-…
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    purpose: Mapped[str]
    filename: Mapped[str]
    format: Mapped[str | None]  # chat, completion, choice; null for results
    bytes: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    repeated_rows: Mapped[int | None] = mapped_column(Integer)  # that say what an earlier row says; null: not counted
    sha256: Mapped[str]
    created_at: Mapped[datetime] = now()
    expires_at: Mapped[datetime | None]  # when the API deletes it; null: never
    deleted_at: Mapped[datetime | None]  # hidden from the tenant; chunks go once no job needs them
    store: Mapped[str | None]  # where its bytes are, such as s3://bucket/prefix; null: in file_chunks
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        Index("ix_files_tenant_id_created_at_id", "tenant_id", "created_at", "id"),
        Index("ix_files_held", "tenant_id", postgresql_include=["bytes"], postgresql_where=text("deleted_at IS NULL")),
        Index("ix_files_expires_at", "expires_at", postgresql_where=text(EXPIRING)),
        CheckConstraint(one_of("purpose", PURPOSES), name="purpose"),
        CheckConstraint(one_of("format", ("chat", "completion", "choice")), name="format"),
        CheckConstraint("(purpose = 'fine-tune') = (format IS NOT NULL)", name="examples_have_a_format"),
        CheckConstraint("bytes > 0 AND rows >= 0", name="size"),
    )


class FileChunk(Base):
    __tablename__ = "file_chunks"
    file_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    tenant_id: Mapped[str]
    data: Mapped[bytes]
    __table_args__ = (
        # Deferred: chunks are written as they come, the file's row when its size and hash are known.
        ForeignKeyConstraint(
            ["tenant_id", "file_id"],
            ["files.tenant_id", "files.id"],
            name="fk_file_chunks_owner",
            ondelete="CASCADE",
            deferrable=True,
            initially="DEFERRED",
        ),
    )


class Doomed(Base):
    """An object that no row needs any more: it goes from its store, however long that is away."""

    __tablename__ = "doomed_objects"
    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    store: Mapped[str] = mapped_column(primary_key=True)
    file_id: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[datetime] = now()  # when it is tried, or tried again
    __table_args__ = (Index("ix_doomed_objects_due_at", "due_at"),)


class Installation(Base):
    """One row: by this name a store knows whose it is."""

    __tablename__ = "installation"
    id: Mapped[str] = mapped_column(primary_key=True)
    swept_at: Mapped[datetime | None]  # when a store was last looked through for orphans


class TokenCount(Base):
    """What a file came to under a base model: kept until the file's bytes go. `base` is the SHA-256 of all that decides
    how a row becomes tokens; `invocation` the ids that an adapter acts from, commas between."""

    __tablename__ = "token_counts"
    file_id: Mapped[str] = mapped_column(primary_key=True)
    base: Mapped[str] = mapped_column(primary_key=True)
    invocation: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    visit: Mapped[bytes]  # zlib of little-endian uint32 [rows]
    once: Mapped[bytes]  # likewise
    targets: Mapped[int] = mapped_column(BigInteger)
    tail: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = now()
    __table_args__ = (of_tenant("file_id", "files", "fk_token_counts_file"),)


class Upload(Base):
    """A file that comes in parts. Once `completed`, `file_id` is the file that they made."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(primary_key=True)  # upload_…
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    expires_after: Mapped[int | None] = mapped_column(Integer)  # seconds, of the file
    status: Mapped[str] = mapped_column(server_default="pending")
    file_id: Mapped[str | None]
    created_at: Mapped[datetime] = now()
    expires_at: Mapped[datetime]
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        of_tenant("file_id", "files", "fk_uploads_file"),
        Index("ix_uploads_expires_at", "expires_at", postgresql_where=text("status = 'pending'")),
        CheckConstraint(one_of("status", UPLOAD_STATES), name="status"),
        CheckConstraint("(status = 'completed') = (file_id IS NOT NULL)", name="completed_has_a_file"),
        CheckConstraint("bytes > 0 AND expires_after > 0", name="size"),
    )


class UploadPart(Base):
    """A part of an upload that is pending: its bytes are a file that nobody is shown."""

    __tablename__ = "upload_parts"
    id: Mapped[str] = mapped_column(primary_key=True)  # part_…
    tenant_id: Mapped[str]
    upload_id: Mapped[str]
    file_id: Mapped[str]
    created_at: Mapped[datetime] = now()
    __table_args__ = (
        of_tenant("upload_id", "uploads", "fk_upload_parts_upload"),
        of_tenant("file_id", "files", "fk_upload_parts_file"),
        Index("ix_upload_parts_tenant_id_upload_id", "tenant_id", "upload_id"),
    )
