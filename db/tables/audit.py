"""Who changed what, and when. Only ever added to; outlives what it tells of, so nothing refers to it."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base


class Audit(Base):
    """One change. Ids are random: numbers would tell a tenant of others' activity."""

    __tablename__ = "audit"
    id: Mapped[str] = mapped_column(primary_key=True)  # audit-…
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    tenant_id: Mapped[str | None]  # whose the object is; null is the installation's
    actor: Mapped[str]  # a key's id, a worker's id, or operator:<the operating system's user>
    action: Mapped[str]  # <kind>.<verb>, as job.cancel
    object: Mapped[str]  # the id of what was changed
    request: Mapped[str | None]  # the X-Request-ID of the answer
    data: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))  # numbers and names, no content
    __table_args__ = (
        Index("ix_audit_tenant_id_at_id", "tenant_id", "at", "id"),
        Index("ix_audit_at_id", "at", "id"),
    )
