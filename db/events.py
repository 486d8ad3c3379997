"""What a tenant reads about a job: events, written in the transaction that made them true. Knows no lease."""

from typing import Any, Literal

from sqlalchemy.orm import Session

from db.tables import Event, Job

Level = Literal["info", "warn", "error"]


def write(session: Session, job: Job, message: str, level: Level = "info", data: dict[str, Any] | None = None) -> None:
    """One message event of `job`."""
    session.add(Event(job_id=job.id, tenant_id=job.tenant_id, level=level, message=message, data=data))


def metrics(session: Session, job: Job, message: str, data: dict[str, Any]) -> None:
    """One metrics event of `job`; `data` holds finite numbers or None only, as JSON has no NaN."""
    session.add(Event(job_id=job.id, tenant_id=job.tenant_id, type="metrics", message=message, data=data))
