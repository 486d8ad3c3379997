"""What a tenant's files and results hold, and the most they may. Knows no file's content."""

from typing import Any

from sqlalchemy import CompoundSelect, func, select, union
from sqlalchemy.orm import Session

from db.tables import File, Job, Restoration, Tenant, UploadPart


class StorageExceeded(Exception):
    """Bytes: `limit` is allowed, `used` is held, `asked` was wanted beside it."""

    def __init__(self, limit: int, used: int, asked: int) -> None:
        super().__init__(f"{used} of {limit} bytes are held and {asked} more were asked for")
        self.limit, self.used, self.asked = limit, used, asked


def held(tenant: str, session: Session) -> int:
    """Bytes of the tenant's files, uploaded and resulting, of deleted ones that a job which has not ended reads, of
    restored steps until they go, and parts of uploads that are pending."""
    mine = select(func.coalesce(func.sum(File.bytes), 0)).where(File.tenant_id == tenant)
    open_jobs = Job.tenant_id == tenant, Job.finished_at.is_(None)
    needed: CompoundSelect[Any] = union(
        select(Job.training_file).where(*open_jobs), select(Job.validation_file).where(*open_jobs)
    )
    kept = mine.where(File.deleted_at.is_not(None), File.id.in_(needed.scalar_subquery()))
    shown = mine.where(File.deleted_at.is_(None))
    restored = select(func.coalesce(func.sum(Restoration.bytes), 0)).where(Restoration.tenant_id == tenant)
    parts = mine.where(File.deleted_at.is_not(None), File.id == UploadPart.file_id, UploadPart.tenant_id == tenant)
    return sum(int(session.scalar(each) or 0) for each in (shown, kept, restored, parts))


def check(tenant: str, session: Session, more: int, default: int) -> None:
    """Raises StorageExceeded where `more` bytes beside what is held are over the tenant's limit, or over `default`
    where it has none of its own."""
    _compare(session.get_one(Tenant, tenant), session, more, default)


def confirm(tenant: str, session: Session, default: int) -> None:
    """The same of what this transaction has stored, with every other of the tenant's uploads waited for or waiting."""
    mine = select(Tenant).where(Tenant.id == tenant).with_for_update(key_share=True)
    _compare(session.scalars(mine.execution_options(populate_existing=True)).one(), session, 0, default)


def _compare(owner: Tenant, session: Session, more: int, default: int) -> None:
    limit = default if owner.max_bytes is None else owner.max_bytes
    used = held(owner.id, session)
    if used + more > limit:
        raise StorageExceeded(limit, used, more)
