"""Steps of jobs that were asked for by number: rebuilt from the journal, kept for a while."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, Integer, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, now, of_tenant, one_of

RESTORATION_STATES = ("asked", "ready", "failed")
ASKED, OVER = text("state = 'asked'"), text("expires_at IS NOT NULL")


class Restoration(Base):
    """The adapter of a job after `step` steps, asked for by its tenant: a cache of what the journal leads to.

    `held_by` is the worker at it, whose heartbeat says whether it still is. `sha256` is of adapter_model.safetensors,
    `bytes` of the tar.
    """

    __tablename__ = "restorations"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    tenant_id: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="asked")
    held_by: Mapped[str | None]
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))  # code, message
    sha256: Mapped[str | None]
    bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    asked_at: Mapped[datetime] = now()
    expires_at: Mapped[datetime | None]  # what is over goes then
    __table_args__ = (
        UniqueConstraint("tenant_id", "job_id", "step"),
        of_tenant("job_id", "jobs", "fk_restorations_job"),
        Index("ix_restorations_asked", "asked_at", postgresql_where=ASKED),
        Index("ix_restorations_expires_at", "expires_at", postgresql_where=OVER),
        CheckConstraint(one_of("state", RESTORATION_STATES), name="state"),
        CheckConstraint("(state = 'asked') = (expires_at IS NULL)", name="over_has_an_end"),
        CheckConstraint("(state = 'ready') = (sha256 IS NOT NULL)", name="ready_has_a_hash"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_has_a_reason"),
        CheckConstraint("step >= 0 AND bytes >= 0", name="whole"),
    )


class RestoredChunk(Base):
    """A piece of a restored adapter's tar, from 0."""

    __tablename__ = "restored_chunks"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    tenant_id: Mapped[str]
    data: Mapped[bytes]
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "job_id", "step"],
            ["restorations.tenant_id", "restorations.job_id", "restorations.step"],
            name="fk_restored_chunks_owner",
            ondelete="CASCADE",
        ),
    )
