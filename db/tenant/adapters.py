"""Published adapters as their tenant sees them: every function takes the tenant first. Knows no file's bytes."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, or_, select, tuple_
from sqlalchemy.orm import Session

from db.ids import UnknownCursor
from db.tables import Adapter, Job


def get(tenant: str, session: Session, name_or_id: str) -> Adapter | None:
    """The tenant's adapter of this name or id."""
    named = or_(Adapter.id == name_or_id, Adapter.name == name_or_id)
    return session.scalar(select(Adapter).where(*_live(tenant), named))


def of_job(tenant: str, session: Session, job_id: str) -> Adapter | None:
    """The adapter that the tenant's job published, if it has; a deleted one says so in `deleted_at`."""
    return session.scalar(select(Adapter).where(Adapter.tenant_id == tenant, Adapter.job_id == job_id))


def page(tenant: str, session: Session, *, after: str | None = None, limit: int = 20) -> tuple[list[Adapter], bool]:
    """Up to `limit` adapters older than the adapter `after`, newest first. Raises UnknownCursor."""
    wanted = select(Adapter).where(*_live(tenant))
    if after is not None:
        start = get(tenant, session, after)
        if start is None:
            raise UnknownCursor(after)
        wanted = wanted.where(tuple_(Adapter.created_at, Adapter.id) < (start.created_at, start.id))
    wanted = wanted.order_by(Adapter.created_at.desc(), Adapter.id.desc())
    found = session.scalars(wanted.limit(limit + 1)).all()
    return list(found[:limit]), len(found) > limit


def makers(tenant: str, session: Session, published: Sequence[Adapter]) -> dict[str, Job]:
    """The tenant's jobs that published these adapters, by id."""
    wanted = select(Job).where(Job.tenant_id == tenant, Job.id.in_([row.job_id for row in published]))
    return {job.id: job for job in session.scalars(wanted)}


def _live(tenant: str) -> tuple[ColumnElement[bool], ...]:
    return Adapter.tenant_id == tenant, Adapter.deleted_at.is_(None)
