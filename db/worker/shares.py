"""Whose turn it was, and what a tenant may hold: the clock of fair sharing at a claim. Knows no step and no engine.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): a tenant's share is charged for what it commits, over its weight
(`db.usage`), and the clock stands where the tenant that was served last began. One that comes begins at the clock.
"""

from collections.abc import Iterable

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from db.tables import Lease, Tenant

# Shares in the order of their ids, then the clock: two workers that serve at once do not wait for each other in a ring.
SERVE = text("""
    WITH asked AS (
        SELECT CAST(:model AS varchar) AS model, CAST(:tenants AS varchar[]) AS tenants, CAST(:burst AS float8) AS burst
    ), served AS (
        SELECT s.model, s.tenant_id, greatest(s.finish, coalesce(c.virtual, 0) - asked.burst / t.weight) AS start
          FROM asked
          JOIN shares s ON s.model = asked.model AND s.tenant_id = ANY(asked.tenants)
          JOIN tenants t ON t.id = s.tenant_id
          LEFT JOIN clocks c ON c.model = s.model
         ORDER BY s.tenant_id
           FOR NO KEY UPDATE OF s
    ), caught_up AS (
        UPDATE shares s SET finish = served.start FROM served
         WHERE s.model = served.model AND s.tenant_id = served.tenant_id AND s.finish < served.start
    )
    INSERT INTO clocks AS c (model, virtual) SELECT model, max(start) FROM served GROUP BY model
        ON CONFLICT (model) DO UPDATE SET virtual = greatest(c.virtual, excluded.virtual)
""")


def serve(session: Session, model: str, tenants: Iterable[str], burst: float) -> None:
    """The clock of `model` as it stands once these tenants are served.

    A tenant that could not use its share is not paid for it later: it is at most `burst` scored tokens over its weight
    behind the clock (as `worker.slices.scheduler.pick` has it).
    """
    session.execute(SERVE, {"model": model, "tenants": sorted(set(tenants)), "burst": burst})


def has_room(session: Session, tenant: str) -> bool:
    """Whether the tenant may hold one lease more. Where it has a limit, its claims are made one after the other."""
    mine = select(Tenant.max_running).where(Tenant.id == tenant, Tenant.max_running.is_not(None))
    limit = session.scalar(mine.with_for_update(key_share=True))
    if limit is None:
        return True
    live = select(func.count()).select_from(Lease)
    held = session.scalar(live.where(Lease.tenant_id == tenant, Lease.expires_at > func.clock_timestamp()))
    return (held or 0) < limit
