"""What a tenant was served: written under the request's id, summed by the day and in all. Knows no prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, BigInteger, String, bindparam, func, select, text
from sqlalchemy.orm import Session

from db.one_trip import Read
from db.tables import ServedDay, Tenant
from db.usage import UTC_DAY

# One statement: a request that is there already adds to nothing.
COMMIT = text("""
    WITH fresh AS (
        INSERT INTO served (tenant_id, request, model, prompt, cached, completion)
        SELECT :tenant, * FROM unnest(:requests, :models, :prompts, :cacheds, :completions)
            ON CONFLICT DO NOTHING RETURNING prompt, cached, completion
    ), sums AS (
        SELECT coalesce(sum(prompt), 0)::bigint AS prompt, coalesce(sum(cached), 0)::bigint AS cached,
               coalesce(sum(completion), 0)::bigint AS completion FROM fresh
    ), day AS (
        INSERT INTO served_days AS d (tenant_id, day, prompt, cached, completion)
        SELECT :tenant, (now() AT TIME ZONE 'UTC')::date, prompt, cached, completion FROM sums
            ON CONFLICT (tenant_id, day) DO UPDATE SET prompt = d.prompt + excluded.prompt,
               cached = d.cached + excluded.cached, completion = d.completion + excluded.completion
    )
    UPDATE tenants SET served_tokens = served_tokens + (SELECT prompt + completion FROM sums) WHERE id = :tenant
    RETURNING (SELECT prompt + completion FROM sums)
""").bindparams(
    *(bindparam(name, type_=ARRAY(String)) for name in ("requests", "models")),
    *(bindparam(name, type_=ARRAY(BigInteger)) for name in ("prompts", "cacheds", "completions")),
)


@dataclass(frozen=True)
class Answered:
    """A request that was served, by its id: tokens of its prompt, of those the cached ones, and of its answers."""

    request: str
    model: str
    prompt: int
    cached: int
    completion: int


@dataclass(frozen=True)
class Allowance:
    """What is left of a tenant's served tokens, in all and of the day (UTC); None is unlimited."""

    whole: int | None
    day: int | None


def commit(tenant: str, session: Session, answered: Sequence[Answered]) -> int:
    """The tokens that these add to what the tenant was served; those committed before, by their ids, add nothing."""
    if not answered:
        return 0
    given = {
        "tenant": tenant,
        "requests": [one.request for one in answered],
        "models": [one.model for one in answered],
        "prompts": [one.prompt for one in answered],
        "cacheds": [one.cached for one in answered],
        "completions": [one.completion for one in answered],
    }
    return int(session.execute(COMMIT, given).scalar() or 0)


def left(tenant: str) -> Read:
    """What `allowance` is of."""
    return _LEFT.with_(tenant=tenant)


def allowance(rows: Sequence[Sequence[Any]]) -> Allowance:
    """What the tenant may still be served, of what is committed; of the rows of `left`."""
    ((quota, spent, daily, today),) = rows
    whole = None if quota is None else max(0, quota - spent)
    return Allowance(whole, None if daily is None else max(0, daily - today))


_SPENT = select(ServedDay.prompt + ServedDay.completion)
_TODAY = _SPENT.where(ServedDay.tenant_id == Tenant.id, ServedDay.day == UTC_DAY)
_LEFT = Read.of(
    select(
        Tenant.serve_quota, Tenant.served_tokens, Tenant.daily_serve_tokens, func.coalesce(_TODAY.scalar_subquery(), 0)
    ).where(Tenant.id == bindparam("tenant", type_=String))
)
