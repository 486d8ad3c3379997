"""Who waits for a worker, as the scheduler sees it. Changes no row."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select, true
from sqlalchemy.orm import Session

from db.contract.spec import SPEC_VERSION
from db.tables import Job, Lease, Tenant
from db.usage import recent_tokens


@dataclass(frozen=True)
class Waiting:
    """A job that may be claimed. `scored_tokens_recent` is its tenant's use in the last ten minutes; a `suspect` was
    there when a worker or an engine failed, and is to be claimed alone."""

    job_id: str
    tenant_id: str
    tenant_class: str
    weight: float
    created_at: datetime
    scored_tokens_recent: int
    suspect: bool = False


def candidates(session: Session, model: str, limit: int = 64) -> list[Waiting]:
    """Up to `limit` jobs of `model` that no live lease holds: every tenant's oldest first, then every second, …

    Taken tenant by tenant, so that one tenant's ten thousand jobs do not hide another's one.
    """
    held = select(Lease.job_id).where(Lease.job_id == Job.id, Lease.expires_at > func.clock_timestamp())
    suspect = or_(Job.suspect, Job.state == "running").label("suspect")  # running, and not held: its worker is silent
    waits = (Job.model == model, Job.state.in_(("queued", "running")), Job.spec_version <= SPEC_VERSION)
    oldest = (
        select(Job.id, Job.created_at, suspect)
        .where(Job.tenant_id == Tenant.id, *waits, ~held.exists())
        .order_by(Job.created_at)
        .limit(limit)
        .correlate(Tenant)
        .lateral("oldest")
    )
    turn = func.row_number().over(partition_by=Tenant.id, order_by=(oldest.c.created_at, oldest.c.id))
    wanted = (
        select(oldest.c.id, Tenant.id, Tenant.tenant_class, Tenant.weight, oldest.c.created_at, oldest.c.suspect)
        .select_from(Tenant)
        .join(oldest, true())
        .order_by(turn, oldest.c.created_at, oldest.c.id)
        .limit(limit)
    )
    found = session.execute(wanted).all()
    recent = recent_tokens(session, {row[1] for row in found})
    return [
        Waiting(job_id, tenant_id, tenant_class, weight, created_at, recent.get(tenant_id, 0), suspect)
        for job_id, tenant_id, tenant_class, weight, created_at, suspect in found
    ]
