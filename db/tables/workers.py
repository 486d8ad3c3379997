"""Worker processes, as they report themselves."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Float, Integer, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, now, one_of


class Worker(Base):
    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)  # wrk_…
    model: Mapped[str] = mapped_column(index=True)
    host: Mapped[str]
    pid: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(server_default="starting")
    reason: Mapped[str | None]  # why it is, or at its end was, out of service
    capacity: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    about: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))  # versions, dtype, self-check
    takes: Mapped[str] = mapped_column(server_default="forward")  # jobs of forward passes, of derivatives, or all
    rate: Mapped[float | None] = mapped_column(Float)  # scored tokens a second while it scores, of late
    # Where and what it serves: url, held (names of adapters), queued_tokens, tools, answer. Null: it serves nobody.
    serving: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    started_at: Mapped[datetime] = now()
    heartbeat_at: Mapped[datetime] = now()
    __table_args__ = (
        CheckConstraint(one_of("state", ("starting", "ready", "out", "draining", "gone")), name="state"),
        CheckConstraint(one_of("takes", ("forward", "autograd", "all")), name="takes"),
    )
