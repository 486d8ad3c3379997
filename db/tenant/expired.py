"""What a tenant has had for as long as it asked for: files, and uploads that nobody completed. Knows no clock but the
database's."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.tenant import deletion, uploads

MOST = 50  # of a kind at a time
DUE = text("SELECT kind, tenant_id, id FROM onward_expired(:most)")  # of all tenants (migration 0009)


def due(session: Session) -> list[tuple[str, str, str]]:
    """(kind, tenant, id): "file" or "upload"."""
    return [(kind, tenant, thing) for kind, tenant, thing in session.execute(DUE, {"most": MOST})]


def go(tenant: str, session: Session, kind: str, thing: str) -> None:
    """A file is deleted as by its tenant: a job that has not ended still reads it. An upload ends, its parts go."""
    if kind == "file":
        deletion.file(tenant, session, thing)
    else:
        uploads.end(tenant, session, thing, "expired")
