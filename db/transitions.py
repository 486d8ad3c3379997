"""The ways a job leaves the queue without a result, in one place for api and worker. Asks no one for the right."""

from typing import Any, Literal

from sqlalchemy import delete, func, update
from sqlalchemy.orm import Session

from db import events, files
from db.tables import Job, Lease, Tenant

Wish = Literal["pause", "cancel"]


def obey(session: Session, job: Job, wish: Wish) -> None:
    """Pauses or cancels a locked job that no live lease holds, or whose holder asks for it; its lease is gone."""
    job.wish = None
    if wish == "pause":
        job.state = "paused"
        events.write(session, job, f"Job paused at step {job.step}")
        _drop_lease(session, job)
        return
    events.write(session, job, f"Job cancelled at step {job.step}")
    end(session, job, "cancelled")


def fail(session: Session, job: Job, code: str, message: str) -> None:
    """Ends a locked job as failed, with the reason the tenant reads."""
    error: dict[str, Any] = {"code": code, "message": message, "param": None}
    job.error = error
    events.write(session, job, f"Job failed at step {job.step}: {message}", "error", {"code": code})
    end(session, job, "failed")


def end(session: Session, job: Job, state: Literal["succeeded", "failed", "cancelled"]) -> None:
    """Brings a locked job to `state`: its tokens are spent, its lease goes, and deleted files that only it needed."""
    job.state, job.wish, job.finished_at, job.estimated_finish = state, None, func.clock_timestamp(), None
    spent = Tenant.spent_tokens + job.scored_tokens
    session.execute(update(Tenant).where(Tenant.id == job.tenant_id).values(spent_tokens=spent))
    _drop_lease(session, job)
    files.purge(session, [f for f in (job.training_file, job.validation_file) if f is not None])


def _drop_lease(session: Session, job: Job) -> None:
    session.flush()
    session.execute(delete(Lease).where(Lease.job_id == job.id))
