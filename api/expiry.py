"""Files and uploads whose time is over go, whosever they are. Knows no route."""

from api.context import Context
from db.tenant import expired


def sweep(context: Context) -> None:
    """Some of them, in transactions of their own: called every few seconds."""
    with context.sessions.begin() as session:
        found = expired.due(session)
    for kind, tenant, thing in found:
        with context.transaction(tenant) as session:
            expired.go(tenant, session, kind, thing)
