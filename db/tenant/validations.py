"""Jobs whose files are being validated: claimed by a process of the API for a time, renewed as it counts, and decided.

A claim is proved by its `holder`; whoever has lost it changes nothing. Knows no token and no file's content.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, literal, or_, select, update
from sqlalchemy.orm import Session

from db import audit, transitions
from db.contract.admitted import Admitted
from db.contract.choosing import said
from db.contract.refusal import Refusal
from db.events import write as write_event
from db.ids import new_id
from db.tables import Job, Tenant, Validation
from db.tenant import jobs, quotas
from db.tenant.quotas import QuotaExceeded
from db.tenant.waiting import waiting, warn_if_unserved


def due(session: Session, models: list[str], limit: int) -> list[tuple[str, str]]:
    """(tenant, job) of up to `limit` jobs of `models` that nobody counts for: every tenant's first before any one's
    second. In nobody's name: of all tenants."""
    place = func.row_number().over(
        partition_by=Validation.tenant_id, order_by=(Validation.created_at, Validation.job_id)
    )
    free = select(Validation.tenant_id, Validation.job_id, Validation.created_at, place.label("place"))
    free = free.where(_free(), Validation.model.in_(models))
    found = free.subquery()
    first = select(found.c.tenant_id, found.c.job_id).order_by(found.c.place, found.c.created_at, found.c.job_id)
    return [(tenant, job) for tenant, job in session.execute(first.limit(limit))]


def claim(tenant: str, session: Session, job_id: str, seconds: float) -> tuple[Job, str, int] | None:
    """The job for `seconds`, the proof of it, and how many claims before this one ended without a word; None where
    another was first, or it is decided."""
    mine = select(Validation).where(Validation.tenant_id == tenant, Validation.job_id == job_id, _free())
    row = session.scalar(mine.with_for_update(skip_locked=True).execution_options(populate_existing=True))
    job = jobs.get(tenant, session, job_id)
    if row is None or job is None:
        return None
    before, row.tries = row.tries, row.tries + 1
    row.holder, row.expires_at, row.rows = new_id(""), _until(seconds), 0
    session.flush()
    return job, row.holder, before


def renew(tenant: str, session: Session, job_id: str, holder: str, rows: int, seconds: float) -> bool:
    """`seconds` more from now, with `rows` read so far. False: the claim is lost, or the job has ended."""
    more = {"expires_at": _until(seconds), "rows": rows}
    return _change(tenant, session, job_id, holder, more)


def release(tenant: str, session: Session, job_id: str, holder: str) -> None:
    """Left for another process, in order."""
    _change(tenant, session, job_id, holder, {"holder": None, "expires_at": None, "tries": Validation.tries - 1})


def admit(tenant: str, session: Session, job_id: str, holder: str, admitted: Admitted) -> Job | None:
    """Queues the job with what it comes to, or fails it where its tenant's quota has no room for its price. None where
    the claim is lost."""
    job = _held(tenant, session, job_id, holder)
    if job is None:
        return None
    mine = select(Tenant).where(Tenant.id == tenant).with_for_update(key_share=True)
    owner = session.scalars(mine.execution_options(populate_existing=True)).one()
    try:
        quotas.check_tokens(owner, session, admitted.price.total)
    except QuotaExceeded as error:
        _refuse(session, job, Refusal("training_file", f"You exceeded your quota of {error}.", "insufficient_quota"))
        return job
    spec, price_tokens = admitted.spec, admitted.price.total
    came_to = jobs.decided(spec) | {"price_tokens": price_tokens, "request": job.request | admitted.told}
    transitions.admit(session, job, came_to)
    session.flush()
    job.expected_start = waiting(tenant, session, [job])[job.id].estimated_start
    write_event(session, job, f"Files validated, job queued: {said(spec.steps, price_tokens, admitted.told)}")
    for remark in admitted.remarks:
        write_event(session, job, remark.message, remark.level)
    audit.write(session, tenant, "job.queue", job.id, {"steps": spec.steps, "price_tokens": price_tokens})
    warn_if_unserved(session, job)
    return job


def refuse(tenant: str, session: Session, job_id: str, holder: str, why: Refusal) -> Job | None:
    """Ends the job as failed. None where the claim is lost."""
    job = _held(tenant, session, job_id, holder)
    if job is not None:
        _refuse(session, job, why)
    return job


def _refuse(session: Session, job: Job, why: Refusal) -> None:
    transitions.refuse(session, job, why)
    audit.write(session, job.tenant_id, "job.refuse", job.id, {"code": why.code})
    session.flush()


def _held(tenant: str, session: Session, job_id: str, holder: str) -> Job | None:
    """The job, locked before the claim on it, as whoever steers it does."""
    job = jobs.locked(tenant, session, job_id)
    mine = select(Validation.holder).where(Validation.tenant_id == tenant, Validation.job_id == job_id)
    return job if session.scalar(mine.with_for_update()) == holder else None


def _change(tenant: str, session: Session, job_id: str, holder: str, values: dict[str, Any]) -> bool:
    mine = Validation.tenant_id == tenant, Validation.job_id == job_id, Validation.holder == holder
    changed = update(Validation).where(*mine).values(values).returning(Validation.job_id)
    return session.execute(changed.execution_options(synchronize_session=False)).first() is not None


def _free() -> ColumnElement[bool]:
    return or_(Validation.expires_at.is_(None), Validation.expires_at < func.clock_timestamp())


def _until(seconds: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + literal(timedelta(seconds=seconds))
