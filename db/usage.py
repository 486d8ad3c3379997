"""What tenants have used: charged in the transaction that commits it, read by the minute and the day. Knows no job."""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import Date, func, literal_column, select, text
from sqlalchemy.orm import Session

from db.tables import Daily, Usage

RECENT = timedelta(minutes=10)
UTC_DAY = literal_column("(now() AT TIME ZONE 'UTC')::date", Date)
# One statement, so that a step costs one more round trip. Rows are locked in this order, after job and lease.
CHARGE = text("""
    WITH charged AS (
        SELECT id AS tenant_id, CAST(:model AS varchar) AS model, CAST(:tokens AS bigint) AS tokens,
               CAST(:tokens AS bigint) / weight AS virtual
          FROM tenants WHERE id = :tenant
    ), share AS (
        INSERT INTO shares AS s (model, tenant_id, finish)
        SELECT model, tenant_id, virtual + coalesce((SELECT c.virtual FROM clocks c WHERE c.model = charged.model), 0)
          FROM charged
            ON CONFLICT (model, tenant_id) DO UPDATE SET finish = s.finish + (SELECT virtual FROM charged)
    ), minute AS (
        INSERT INTO usage AS u (minute, model, tenant_id, tokens)
        SELECT date_trunc('minute', now()), model, tenant_id, tokens FROM charged
            ON CONFLICT (minute, model, tenant_id) DO UPDATE SET tokens = u.tokens + excluded.tokens
    )
    INSERT INTO usage_days AS d (tenant_id, day, tokens)
    SELECT tenant_id, (now() AT TIME ZONE 'UTC')::date, tokens FROM charged
        ON CONFLICT (tenant_id, day) DO UPDATE SET tokens = d.tokens + excluded.tokens
""")


def charge(session: Session, model: str, tenant: str, tokens: int) -> None:
    """`tokens` scored tokens that are committed with this transaction: on the tenant's share and in its usage."""
    if tokens:
        session.execute(CHARGE, {"model": model, "tenant": tenant, "tokens": tokens})


def recent_tokens(session: Session, tenants: Collection[str] | None = None) -> dict[str, int]:
    """Scored tokens of the last ten minutes by tenant id, of these or of all; a tenant without any is missing."""
    used = select(Usage.tenant_id, func.sum(Usage.tokens)).where(Usage.minute > func.now() - RECENT)
    if tenants is not None:
        used = used.where(Usage.tenant_id.in_(tenants))
    return {tenant: int(tokens) for tenant, tokens in session.execute(used.group_by(Usage.tenant_id))}


def today(session: Session, tenant: str) -> int:
    """Scored tokens that the tenant has committed since midnight, UTC."""
    spent = select(Daily.tokens).where(Daily.tenant_id == tenant, Daily.day == UTC_DAY)
    return session.scalar(spent) or 0
