"""Files, kept as chunks of rows."""

from datetime import datetime

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
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, now, one_of


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
    deleted_at: Mapped[datetime | None]  # hidden from the tenant; chunks go once no job needs them
    store: Mapped[str | None]  # where its bytes are, such as s3://bucket/prefix; null: in file_chunks
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        Index("ix_files_tenant_id_created_at_id", "tenant_id", "created_at", "id"),
        Index("ix_files_held", "tenant_id", postgresql_include=["bytes"], postgresql_where=text("deleted_at IS NULL")),
        CheckConstraint(one_of("purpose", ("fine-tune", "fine-tune-results")), name="purpose"),
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
