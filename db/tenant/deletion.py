"""Deletion is one thing: a result file and the adapter in it go together, by whichever name. Knows no disk.

The adapter's row stays as a tombstone, from which workers learn what to take from their disks, and the journal as the
receipt. Its file is locked first, whichever was named.
"""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import audit, files
from db.tables import Adapter
from db.tenant import adapters


def file(tenant: str, session: Session, file_id: str) -> tuple[bool, Adapter | None]:
    """Whether the tenant's file was there to be deleted, and the adapter that went with it."""
    there, gone = _delete(tenant, session, file_id)
    if there:
        audit.write(session, tenant, "file.delete", file_id, {"adapter": gone.name} if gone is not None else None)
    return there, gone


def adapter(tenant: str, session: Session, name_or_id: str) -> Adapter | None:
    """The tenant's adapter, deleted now with its file; None where there was none."""
    found = adapters.get(tenant, session, name_or_id)
    gone = None if found is None else _delete(tenant, session, found.file_id)[1]
    if gone is not None:
        audit.write(session, tenant, "adapter.delete", gone.name, {"id": gone.id, "file": gone.file_id})
    return gone


def _delete(tenant: str, session: Session, file_id: str) -> tuple[bool, Adapter | None]:
    if not files.delete(tenant, session, file_id):
        return False, None
    mine = select(Adapter).where(Adapter.tenant_id == tenant, Adapter.file_id == file_id, Adapter.deleted_at.is_(None))
    gone = session.scalar(mine.with_for_update(key_share=True))
    if gone is not None:
        gone.deleted_at = func.now()
        session.flush()
    return True, gone
