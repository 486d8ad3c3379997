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
from db.contract.spec import JobSpec
from db.tables import Job, Lease
from db.transitions import Wish
from db.worker import claimable, deaths, results, shares

DAY = 86400.0  # seconds


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
    alone: bool = False  # a suspect: its worker may hold no other
    deaths: int = 0  # of workers that held it, of late
    expected_start: datetime | None = None  # as the tenant was told when the job was made
    estimated_finish: datetime | None = None  # as it was told at the last commit


def claim(
    session: Session, job_id: str, worker_id: str, seconds: float, max_deaths: int, within: float = DAY
) -> Claim | None:
    """Leases the job to `worker_id` for `seconds`, or None when it is held, gone, set aside, now ended, or its tenant
    holds as many as it may; and where its method needs derivatives that the worker does not have.

    A wish whose worker died is obeyed here. That a worker fell silent is recorded, and makes the job a suspect, which
    is to be alone with its worker; `max_deaths` of workers that were, within `within` seconds, end the job as failed
    with code `poison`. A spec that this code cannot read waits for a worker that can. At most one of any number of
    concurrent callers gets the claim.
    """
    job = claimable.locked(session, job_id)
    if job is None or not claimable.fits(session, job, worker_id):
        return None
    # A statement of its own, after the lock: in the same statement it would see leases as of before the lock.
    old = session.scalar(select(Lease).where(Lease.job_id == job_id).execution_options(populate_existing=True))
    now: datetime = session.scalar(select(func.clock_timestamp()))  # type: ignore[assignment]
    if old is not None and old.expires_at > now:
        return None
    if job.wish is None and not shares.has_room(session, job.tenant_id):
        return None
    if old is not None:
        claimable.take_over(session, job, old, worker_id, now)
    spec = None
    if job.wish is not None:
        _obey(session, job)
    elif not claimable.poisonous(session, job, now, max_deaths, within):
        spec = claimable.readable(session, job)
    if spec is None:
        session.flush()
        return None
    transitions.claim(session, job)
    session.flush()
    session.refresh(job)
    _lease(session, job, worker_id, seconds)
    counted = len(deaths.recent(job, now, within))
    return _claimed(job, spec, worker_id, took_over=old is not None, deaths=counted)


def _lease(session: Session, job: Job, worker_id: str, seconds: float) -> None:
    row = {
        "worker_id": worker_id,
        "token": job.fence,
        "claimed_at": func.clock_timestamp(),
        "expires_at": _in(seconds),
        "alone": job.suspect,
    }
    fresh = insert(Lease).values(job_id=job.id, tenant_id=job.tenant_id, **row)
    session.execute(fresh.on_conflict_do_update(index_elements=[Lease.job_id], set_=row))


def _claimed(job: Job, spec: JobSpec, worker_id: str, took_over: bool, deaths: int) -> Claim:
    assert job.started_at is not None
    return Claim(
        job_id=job.id,
        tenant_id=job.tenant_id,
        worker_id=worker_id,
        token=job.fence,
        spec=spec,
        step=job.step,
        scored_tokens=job.scored_tokens,
        price_tokens=job.price_tokens,
        best_step=job.best_step,
        best_loss=job.best_loss,
        created_at=job.created_at,
        started_at=job.started_at,
        took_over=took_over,
        traceparent=job.traceparent,
        alone=job.suspect,
        deaths=deaths,
        expected_start=job.expected_start,
        estimated_finish=job.estimated_finish,
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


def release(session: Session, claim: Claim, *, suspect: bool | None = None) -> None:
    """Gives the job back to the queue, or obeys the tenant's wish if there is one; `suspect` is what is thought of it
    from now on (None: no change). Raises LeaseLost."""
    job = lock(session, claim)
    if suspect and not job.suspect:
        events.write(session, job, "The engine failed at a batch that it was in: it is tried alone next", "warn")
    job.suspect = job.suspect if suspect is None else suspect
    _give_back(session, job)


def blame(session: Session, claim: Claim) -> None:
    """Gives back a job that was alone with an engine that broke, as if its worker had died of it. Raises LeaseLost."""
    job = lock(session, claim)
    now: datetime = session.scalar(select(func.clock_timestamp()))  # type: ignore[assignment]
    events.write(session, job, f"The engine of worker {claim.worker_id} broke at step {job.step}", "warn")
    deaths.record(job, worker=claim.worker_id, token=claim.token, time=now, alone=True)
    _give_back(session, job)


def _give_back(session: Session, job: Job) -> None:
    if job.wish is not None:
        _obey(session, job)
    else:
        transitions.release(session, job)
    session.flush()


def _obey(session: Session, job: Job) -> None:
    if job.wish == "cancel":
        results.measure(session, job)
    transitions.obey(session, job, cast(Wish, job.wish))


def unheld(session: Session, job_ids: Iterable[str]) -> set[str]:
    """Those of the jobs that exist and that no live lease holds: what only their holder would use is nobody's."""
    held = select(Lease.job_id).where(Lease.job_id == Job.id, Lease.expires_at > func.clock_timestamp())
    return set(session.scalars(select(Job.id).where(Job.id.in_(list(job_ids)), ~held.exists())))


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
