"""Who waits for a worker, as the scheduler sees it. Changes no row."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, true
from sqlalchemy.orm import Session

from db.tables import Job, Lease, Tenant
from db.usage import recent_tokens


@dataclass(frozen=True)
class Waiting:
    """A job that may be claimed. `scored_tokens_recent` is its tenant's use in the last ten minutes."""

    job_id: str
    tenant_id: str
    tenant_class: str
    weight: float
    created_at: datetime
    scored_tokens_recent: int


def candidates(session: Session, model: str, limit: int = 64) -> list[Waiting]:
    """Up to `limit` jobs of `model` that no live lease holds: every tenant's oldest first, then every second, …

    Taken tenant by tenant, so that one tenant's ten thousand jobs do not hide another's one.
    """
    held = select(Lease.job_id).where(Lease.job_id == Job.id, Lease.expires_at > func.clock_timestamp())
    oldest = (
        select(Job.id, Job.created_at)
        .where(Job.tenant_id == Tenant.id, Job.model == model, Job.state.in_(("queued", "running")), ~held.exists())
        .order_by(Job.created_at)
        .limit(limit)
        .correlate(Tenant)
        .lateral("oldest")
    )
    turn = func.row_number().over(partition_by=Tenant.id, order_by=(oldest.c.created_at, oldest.c.id))
    wanted = (
        select(oldest.c.id, Tenant.id, Tenant.tenant_class, Tenant.weight, oldest.c.created_at)
        .select_from(Tenant)
        .join(oldest, true())
        .order_by(turn, oldest.c.created_at, oldest.c.id)
        .limit(limit)
    )
    found = session.execute(wanted).all()
    recent = recent_tokens(session, {row[1] for row in found})
    return [
        Waiting(job_id, tenant_id, tenant_class, weight, created_at, recent.get(tenant_id, 0))
        for job_id, tenant_id, tenant_class, weight, created_at in found
    ]
