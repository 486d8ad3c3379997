"""The right to advance a job: a time-limited lease with a fencing token. Time is the database's.

Lock order everywhere is job, then lease. Knows no step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, and_, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db import events, files, transitions
from db.contract.spec import JobSpec, stored
from db.tables import Job, Lease
from db.transitions import Wish
from db.worker import shares


class LeaseLost(Exception):
    """The claim's lease has expired, was released or taken over: drop the run, write nothing."""


@dataclass(frozen=True)
class Claim:
    """A job as it stood when it was claimed, and the token that proves the claim. `step` steps are committed."""

    job_id: str
    tenant_id: str
    worker_id: str
    token: int
    spec: JobSpec
    step: int
    scored_tokens: int
    price_tokens: int
    best_step: int | None
    best_loss: float | None
    created_at: datetime
    started_at: datetime
    took_over: bool  # the lease of another holder had expired
    traceparent: str | None = None  # of the request that made the job
    expected_start: datetime | None = None  # as the tenant was told when the job was made


def claim(session: Session, job_id: str, worker_id: str, seconds: float, max_attempts: int) -> Claim | None:
    """Leases the job to `worker_id` for `seconds`, or None when it is held, gone, now ended, or its
    tenant holds as many as it may.

    A wish whose worker died is obeyed here. More than `max_attempts` claims in a row that committed no step end
    the job as failed with code `poison`. At most one of any number of concurrent callers gets the claim.
    """
    waiting = select(Job).where(Job.id == job_id, Job.state.in_(("queued", "running")))
    locked = waiting.with_for_update(skip_locked=True, key_share=True).execution_options(populate_existing=True)
    job = session.scalar(locked)
    if job is None:
        return None
    # A statement of its own, after the lock: in the same statement it would see leases as of before the lock.
    old = session.scalar(select(Lease).where(Lease.job_id == job_id).execution_options(populate_existing=True))
    if old is not None and _live(session, old):
        return None
    if job.wish is not None:
        transitions.obey(session, job, cast(Wish, job.wish))
        session.flush()
        return None
    if job.attempts >= max_attempts:
        reason = f"{max_attempts} workers in a row stopped before they committed a step"
        transitions.fail(session, job, "poison", reason)
        session.flush()
        return None
    if not shares.has_room(session, job.tenant_id):
        return None
    if old is not None:
        events.write(session, job, f"Worker {old.worker_id} fell silent: taken over at step {job.step}", "warn")
    transitions.claim(session, job)
    session.flush()
    session.refresh(job)
    _lease(session, job, worker_id, seconds)
    return _claimed(job, worker_id, took_over=old is not None)


def _lease(session: Session, job: Job, worker_id: str, seconds: float) -> None:
    expiry = _in(seconds)
    row = {"worker_id": worker_id, "token": job.fence, "claimed_at": func.clock_timestamp(), "expires_at": expiry}
    fresh = insert(Lease).values(job_id=job.id, tenant_id=job.tenant_id, **row)
    session.execute(fresh.on_conflict_do_update(index_elements=[Lease.job_id], set_=row))


def _claimed(job: Job, worker_id: str, took_over: bool) -> Claim:
    assert job.started_at is not None
    return Claim(
        job_id=job.id,
        tenant_id=job.tenant_id,
        worker_id=worker_id,
        token=job.fence,
        spec=stored(job.spec),
        step=job.step,
        scored_tokens=job.scored_tokens,
        price_tokens=job.price_tokens,
        best_step=job.best_step,
        best_loss=job.best_loss,
        created_at=job.created_at,
        started_at=job.started_at,
        took_over=took_over,
        traceparent=job.traceparent,
        expected_start=job.expected_start,
    )


def lock(session: Session, claim: Claim) -> Job:
    """Locks the claim's job and its lease until the transaction ends. Raises LeaseLost.

    A lease that has expired is lost even when nobody has claimed the job since.
    """
    wanted = select(Job).join(Lease, Lease.job_id == Job.id).where(_is(claim))
    locked = wanted.with_for_update(of=[Job, Lease], key_share=True).execution_options(populate_existing=True)
    job = session.scalar(locked)
    if job is None:
        raise LeaseLost(f"{claim.job_id}: token {claim.token} of {claim.worker_id} holds no lease")
    return job


def renew(session: Session, claims: Iterable[Claim], seconds: float) -> set[str]:
    """Extends the leases still held to `seconds` from now, and returns their jobs' ids."""
    found = update(Lease).where(_any_of(claims)).values(expires_at=_in(seconds))
    return set(session.scalars(found.returning(Lease.job_id)))


def wishes(session: Session, claims: Iterable[Claim]) -> dict[str, Wish | None]:
    """What the tenants wish of the jobs still held, by job id. A job missing here is no longer held."""
    found = select(Job.id, Job.wish).join(Lease, Lease.job_id == Job.id).where(_any_of(claims))
    return {job_id: cast(Wish | None, wish) for job_id, wish in session.execute(found)}


def release(session: Session, claim: Claim) -> None:
    """Gives the job back to the queue, or obeys the tenant's wish if there is one. Raises LeaseLost."""
    job = lock(session, claim)
    if job.wish is not None:
        transitions.obey(session, job, cast(Wish, job.wish))
    else:
        transitions.release(session, job)
    session.flush()


def read_file(session: Session, claim: Claim, file_id: str) -> bytes:
    """The bytes of one of the job's own files, also after the tenant deleted it. Raises LeaseLost, PermissionError."""
    job = session.scalar(select(Job).join(Lease, Lease.job_id == Job.id).where(_is(claim)))
    if job is None:
        raise LeaseLost(claim.job_id)
    if file_id not in (job.training_file, job.validation_file):
        raise PermissionError(f"{file_id} is no file of {job.id}")
    return b"".join(files.read(session, file_id))


def _is(claim: Claim) -> ColumnElement[bool]:
    return and_(
        Lease.job_id == claim.job_id,
        Lease.token == claim.token,
        Lease.worker_id == claim.worker_id,
        Lease.expires_at > func.clock_timestamp(),
    )


def _any_of(claims: Iterable[Claim]) -> ColumnElement[bool]:
    keys = [(c.job_id, c.worker_id, c.token) for c in claims]
    mine = tuple_(Lease.job_id, Lease.worker_id, Lease.token).in_(keys)
    return and_(mine, Lease.expires_at > func.clock_timestamp())


def _in(seconds: float) -> ColumnElement[datetime]:
    return func.clock_timestamp() + literal(timedelta(seconds=seconds))


def _live(session: Session, lease: Lease) -> bool:
    return bool(session.scalar(select(literal(lease.expires_at) > func.clock_timestamp())))
