"""What a job's metrics events hold: the points of its curves in their order, and its drift. Knows no plot."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import Event

MOST: Final = 20_000  # events that are read at one time


def metrics(tenant: str, session: Session, job_id: str) -> Sequence[tuple[dict[str, Any], datetime]]:
    """The data of a job's newest MOST metrics events and when each was written, oldest first. Unknown job: none."""
    wanted = select(Event.data, Event.created_at).where(
        Event.tenant_id == tenant, Event.job_id == job_id, Event.type == "metrics", Event.data.is_not(None)
    )
    found = session.execute(wanted.order_by(Event.number.desc()).limit(MOST)).all()
    return [(data, at) for data, at in reversed(found) if data is not None]


def drift(tenant: str, session: Session, job_id: str) -> float | None:
    """Of an ended job's adapter, nats a token: it is the last of its metrics (`db.worker.reports.published`). None
    where it was not measured, and once the job's events are dropped."""
    mine = select(Event.data).where(Event.tenant_id == tenant, Event.job_id == job_id, Event.type == "metrics")
    last = session.scalar(mine.order_by(Event.number.desc()).limit(1))
    return None if last is None else last.get("drift")
