"""/v1/onward/audit: who changed what, for the tenant itself and for an operator. Knows no kind of object."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from api import errors
from api.auth import Key, insufficient
from api.context import Ctx
from api.pagination import Entry, Page, page
from db import audit
from db.tables import Audit
from db.tenant.keys import Known

router = APIRouter(prefix="/v1/onward/audit", tags=["audit"])
MISSING = "missing_required_parameter"


class AuditObject(Entry):
    """`actor` is a key's id, a worker's id, `api` for what a process did by itself, or `operator:` and the
    user who ran a command."""

    object: Literal["audit.entry"] = "audit.entry"
    created_at: int
    tenant: str
    actor: str
    action: str
    subject: str
    request: str | None
    data: dict[str, Any] | None


@router.get("")
def list_entries(
    key: Key,
    context: Ctx,
    tenant: Annotated[str | None, Query(description="Whose changes: an operator's key must say it.")] = None,
    after: Annotated[str | None, Query(description="The id that the page before ended with.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page[AuditObject]:
    """A tenant's changes, newest first: files, jobs, adapters and keys. Of no other tenant for a tenant's key."""
    whose = named(key, tenant)
    with context.transaction(whose) as session:
        found, more = audit.page(whose, session, after=after, limit=limit)
        return page([view(row, whose) for row in found], more)


def named(key: Known, asked: str | None) -> str:
    """The tenant to tell of. A key's own, whatever it asks for beyond is refused alike, there or not."""
    if key.tenant is None:
        return errors.found(asked, errors.invalid("Missing required parameter: 'tenant'.", "tenant", MISSING))
    if asked not in (None, key.tenant.id):
        raise insufficient("This key speaks for one tenant")
    return key.tenant.id


def view(row: Audit, tenant: str) -> AuditObject:
    return AuditObject(
        id=row.id, created_at=int(row.at.timestamp()), tenant=tenant, actor=row.actor, action=row.action,
        subject=row.object, request=row.request, data=row.data,
    )  # fmt: skip
