"""What was recorded of a tenant's adapter, for who compares a receipt with it: the tenant comes first."""

import hashlib
from dataclasses import dataclass

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from db.tables import Adapter, File, Result


@dataclass(frozen=True)
class Kept:
    """An adapter as it was published, also one that was deleted since; `receipt` is the SHA-256 of its receipt."""

    name: str
    step: int
    sha256: str
    receipt: str | None

    def holds(self, receipt: bytes) -> bool | None:
        """Whether these are the kept receipt's bytes; None where none was kept."""
        return None if self.receipt is None else hashlib.sha256(receipt).hexdigest() == self.receipt


def kept(tenant: str, session: Session, job_id: str) -> Kept | None:
    """What the tenant's job published, or None."""
    of_it = and_(Result.job_id == Adapter.job_id, Result.tenant_id == tenant, Result.kind == "receipt")
    wanted = select(Adapter.name, Adapter.step, Adapter.sha256, File.sha256)
    wanted = wanted.outerjoin(Result, of_it).outerjoin(File, and_(File.id == Result.file_id, File.tenant_id == tenant))
    row = session.execute(wanted.where(Adapter.tenant_id == tenant, Adapter.job_id == job_id)).one_or_none()
    return None if row is None else Kept(*row)
