"""Adapters that a job may go on from, as their tenant names them: every function takes the tenant first.

Knows no replay: that the adapter is still what it was is its worker's to see.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.contract.spec import JobSpec, stored
from db.ids import of_checkpoint
from db.tables import Adapter, Job
from db.tenant import adapters, restorations
from db.tenant.restorations import Step


class NoParent(Exception):
    """What the job should go on from is not the tenant's, or was deleted meanwhile."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


class OtherLayout(Exception):
    """The job's adapter is not laid out as the one that it should go on from."""


def named(tenant: str, session: Session, name: str) -> Step | None:
    """The tenant's adapter of this name or id, or a step of a job by its name."""
    step = restorations.named(tenant, session, name)
    adapter = adapters.get(tenant, session, name) if step is None else None
    return step if adapter is None else restorations.find(tenant, session, adapter.job_id, adapter.step)


def was_deleted(tenant: str, session: Session, name: str) -> bool:
    """Whether the tenant has had an adapter of this name, or one with such a step."""
    whole = (of_checkpoint(name) or (name,))[0]
    gone = Adapter.tenant_id == tenant, Adapter.name == whole, Adapter.deleted_at.is_not(None)
    return session.scalar(select(Adapter.id).where(*gone)) is not None


def check(tenant: str, session: Session, spec: JobSpec) -> None:
    """That a job of this spec can be made: its parent, if it has one, is there and laid out as it is. A deletion that
    is under way is waited for. Raises NoParent, OtherLayout."""
    if spec.parent is None:
        return
    mine = select(Adapter.deleted_at).where(Adapter.tenant_id == tenant, Adapter.job_id == spec.parent.job)
    deleted = session.scalar(mine.with_for_update(read=True))
    job = session.scalar(select(Job).where(Job.tenant_id == tenant, Job.id == spec.parent.job))
    if deleted is not None or job is None or spec.parent.step > job.step:
        raise NoParent(spec.parent.job)
    theirs = stored(job.spec)
    if (theirs.model, theirs.adapter) != (spec.model, spec.adapter):
        raise OtherLayout(spec.parent.job)
