"""Who waits for a worker, as the scheduler sees it. Changes no row."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.contract.spec import SPEC_VERSION


@dataclass(frozen=True)
class Waiting:
    """A job that may be claimed. `virtual` is where its tenant stands to the model's clock, in scored tokens over
    weight: the less, the sooner it is its turn. Of a tenant's jobs those of high `priority` go first. A `suspect` was
    there when a worker or an engine failed, and is to be claimed alone; an `autograd` job needs derivatives."""

    job_id: str
    tenant_id: str
    tenant_class: str
    weight: float
    created_at: datetime
    virtual: float
    priority: int = 0
    suspect: bool = False
    autograd: bool = False


# Walks the index of shares in the order of turns and stops at the last tenant wanted; of each tenant it reads the head
# of its queue. So it costs the same whatever the number of jobs and of tenants. LATERAL … LIMIT 1 and not EXISTS, which
# the planner may turn into a join with all jobs.
CLAIMABLE = """
    FROM jobs j
   WHERE j.model = s.model AND j.tenant_id = s.tenant_id AND j.state IN ('queued', 'running')
     AND j.spec_version <= :known AND j.autograd = ANY(:kinds)
     AND NOT EXISTS (SELECT FROM leases l WHERE l.job_id = j.id AND l.expires_at > clock_timestamp())
   ORDER BY j.priority DESC, j.created_at, j.id
"""
CANDIDATES = text(f"""
    SELECT job.id, s.tenant_id, s.tenant_class, s.weight, job.created_at, s.virtual, job.priority, job.suspect,
           job.autograd
      FROM (
        SELECT s.model, s.tenant_id, s.finish, s.since, t.tenant_class, t.weight, t.max_running - held.jobs AS room,
               s.finish - coalesce((SELECT virtual FROM clocks WHERE model = :model), 0) AS virtual
          FROM shares s
          JOIN tenants t ON t.id = s.tenant_id
         CROSS JOIN LATERAL (
            SELECT count(*) AS jobs FROM leases
             WHERE t.max_running IS NOT NULL AND tenant_id = t.id AND expires_at > clock_timestamp()
         ) held
         CROSS JOIN LATERAL (SELECT j.id {CLAIMABLE} LIMIT 1) head
         WHERE s.model = :model
           AND (t.max_running IS NULL OR t.max_running > held.jobs)
           AND (t.daily_tokens IS NULL OR t.daily_tokens > coalesce((
                SELECT tokens FROM usage_days
                 WHERE tenant_id = t.id AND day = (now() AT TIME ZONE 'UTC')::date), 0))
         ORDER BY s.finish, s.since, s.tenant_id
         LIMIT :tenants
      ) s
     CROSS JOIN LATERAL (
        SELECT j.id, j.created_at, j.priority, j.suspect OR j.state = 'running' AS suspect, j.autograd
        {CLAIMABLE} LIMIT least(CAST(:each AS bigint), s.room)
     ) job
     ORDER BY s.finish, s.since, s.tenant_id, job.priority DESC, job.created_at, job.id
""")


def candidates(
    session: Session, model: str, limit: int = 64, more: int = 0, kinds: Sequence[bool] = (False, True)
) -> list[Waiting]:
    """Of the `limit + more` tenants whose turn is next, up to `limit` jobs each of `model` that no live lease holds; of
    those that need derivatives, of those that do not, or of both, as `kinds` says.

    Tenants that have `max_running` leases, or have had their tokens of the day, are passed over.
    """
    asked = {"model": model, "tenants": limit + more, "each": limit, "known": SPEC_VERSION, "kinds": list(kinds)}
    return [Waiting(*row) for row in session.execute(CANDIDATES, asked)]
