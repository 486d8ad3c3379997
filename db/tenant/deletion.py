"""Deletion is one thing: an adapter, its result files and what was rebuilt of its job go together, by whichever name.

The adapter's row stays as a tombstone, from which workers learn what to take from their disks, and the journal as the
receipt of what is built on it. The adapter's file is locked first, whichever was named. Knows no disk.
"""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import audit, files
from db.ids import step_file
from db.tables import Adapter
from db.tenant import adapters, restorations, results


def file(tenant: str, session: Session, file_id: str) -> tuple[bool, Adapter | None]:
    """Whether the tenant's file was there to be deleted, and the adapter that went with it: its tar is the adapter,
    the other results of a job are files like any."""
    there, gone = _delete(tenant, session, file_id)
    if there:
        audit.write(session, tenant, "file.delete", file_id, {"adapter": gone.name} if gone is not None else None)
    return there, gone


def adapter(tenant: str, session: Session, name_or_id: str) -> Adapter | None:
    """The tenant's adapter, deleted now with its files; None where there was none."""
    found = adapters.get(tenant, session, name_or_id)
    gone = None if found is None else _delete(tenant, session, found.file_id)[1]
    if gone is not None:
        audit.write(session, tenant, "adapter.delete", gone.name, {"id": gone.id, "file": gone.file_id})
    return gone


def step(tenant: str, session: Session, job_id: str, number: int) -> bool:
    """Whether there was something rebuilt of this step of the tenant's job, gone now."""
    there = restorations.drop(tenant, session, job_id, number)
    if there:
        audit.write(session, tenant, "file.delete", step_file(job_id, number))
    return there


def _delete(tenant: str, session: Session, file_id: str) -> tuple[bool, Adapter | None]:
    if not files.delete(tenant, session, file_id):
        return False, None
    mine = select(Adapter).where(Adapter.tenant_id == tenant, Adapter.file_id == file_id, Adapter.deleted_at.is_(None))
    gone = session.scalar(mine.with_for_update(key_share=True))
    if gone is not None:
        gone.deleted_at = func.now()
        session.flush()
        for other in results.of_jobs(tenant, session, [gone.job_id]).get(gone.job_id, []):
            files.delete(tenant, session, other)
        restorations.drop(tenant, session, gone.job_id)
    return True, gone
