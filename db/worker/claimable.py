"""Whether a job may be claimed, and what is to be written of it first. Knows no token: a claim is its caller's."""

from datetime import datetime

from psycopg.errors import LockNotAvailable
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from db import events, transitions
from db.contract.spec import SPEC_VERSION, JobSpec, stored
from db.tables import Job, Lease, Worker
from db.worker import deaths, results

PATIENCE = "200ms"  # with another's lock on a job's row


def locked(session: Session, job_id: str) -> Job | None:
    """The job, where it waits, with its row locked. A lock of another, a sweep's or a tenant's, is soon gone, and to
    pass the job by would part it from its cohort for a slice; one that stays is a frozen process's: None."""
    waiting = select(Job).where(Job.id == job_id, Job.state.in_(("queued", "running")))
    waiting = waiting.execution_options(populate_existing=True)
    job = session.scalar(waiting.with_for_update(skip_locked=True, key_share=True))
    if job is not None:
        return job
    try:
        with session.begin_nested():
            session.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE}'"))
            job = session.scalar(waiting.with_for_update(key_share=True))
            session.execute(text("SET LOCAL lock_timeout = DEFAULT"))
            return job
    except OperationalError as error:
        if isinstance(error.orig, LockNotAvailable):
            return None
        raise


def fits(session: Session, job: Job, worker_id: str) -> bool:
    """Whether the worker has what the job's method needs, as its row says."""
    if not job.autograd:
        return True
    takes = session.scalar(select(Worker.takes).where(Worker.id == worker_id))
    return takes in ("autograd", "all")


def take_over(session: Session, job: Job, old: Lease, worker_id: str, now: datetime) -> None:
    """A holder that beats on, or has signed off, was kept from the database: that is nobody's death."""
    holder = session.get_one(Worker, old.worker_id, populate_existing=True)
    if old.worker_id == worker_id or holder.heartbeat_at > old.expires_at or holder.state == "gone":
        events.write(
            session, job, f"The lease of worker {old.worker_id} ran out: taken over at step {job.step}", "warn"
        )
        return
    events.write(session, job, f"Worker {old.worker_id} fell silent: taken over at step {job.step}", "warn")
    deaths.record(job, worker=old.worker_id, token=old.token, time=now, alone=old.alone)


def poisonous(session: Session, job: Job, now: datetime, max_deaths: int, within: float) -> bool:
    """Whether it ends here, with the evidence."""
    held_against = [death for death in deaths.recent(job, now, within) if death["alone"]]
    if len(held_against) < max_deaths:
        return False
    results.measure(session, job)
    transitions.fail(session, job, "poison", deaths.told(held_against), {"deaths": held_against})
    return True


def readable(session: Session, job: Job) -> JobSpec | None:
    """Its spec; None where this code cannot read it, which leaves the job to workers that know a later version."""
    try:
        return stored(job.spec)
    except (ValueError, LookupError, TypeError, AttributeError):  # pydantic's is a ValueError
        job.spec_version = SPEC_VERSION + 1
        events.write(session, job, "Job waits for a newer worker: those that run now cannot read its spec", "warn")
        if job.state == "running":
            transitions.release(session, job)
        return None
