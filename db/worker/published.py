"""A published adapter and what it is rebuilt from, for whoever verifies or rebuilds it: an operator's right."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from db.contract.journal_row import replay_of
from db.contract.spec import JobSpec, stored
from db.tables import Adapter, Job


@dataclass(frozen=True)
class Recorded:
    """What was recorded of an adapter when it was published: `step` steps of its job's journal give the file at `path`
    with SHA-256 (hex) `sha256`; its directory is the tar in the file `file_id`."""

    name: str
    job_id: str
    step: int
    sha256: str
    path: str
    spec: JobSpec
    file_id: str = ""


OVERLAP = timedelta(minutes=5)  # a deletion is dated when its transaction begins, and seen once it has committed


def deleted(session: Session, since: datetime | None) -> tuple[Sequence[str], datetime]:
    """The jobs of any tenant whose adapters were deleted since, all where that is None, and the `since` to ask with
    next. Some are told twice."""
    wanted = select(Adapter.job_id).where(Adapter.deleted_at.is_not(None))
    if since is not None:
        wanted = wanted.where(Adapter.deleted_at >= since)
    now = session.execute(select(func.now())).scalar_one()
    return session.scalars(wanted).all(), now - OVERLAP


def recorded(session: Session, adapter: str) -> Recorded | None:
    """The adapter of any tenant by its name, its id or its job's id; None where there is none."""
    named = or_(Adapter.id == adapter, Adapter.name == adapter, Adapter.job_id == adapter)
    row = session.scalars(select(Adapter).where(named)).one_or_none()
    if row is None:
        return None
    spec = stored(session.get_one(Job, row.job_id).spec)
    return Recorded(row.name, row.job_id, row.step, row.sha256, row.path, spec, row.file_id)


def everyone(session: Session) -> list[str]:
    """The jobs that have published an adapter, of all tenants, oldest first."""
    return list(session.scalars(select(Adapter.job_id).order_by(Adapter.created_at, Adapter.id)))


def replayable(session: Session, job_id: str) -> bool:
    """Whether the job's adapter can be rebuilt from its journal."""
    return replay_of(session.get_one(Job, job_id).spec) != "snapshots"


def moved(session: Session, job_id: str, path: str) -> None:
    """The adapter of the job lies at `path` from now on."""
    session.execute(update(Adapter).where(Adapter.job_id == job_id, Adapter.path != path).values(path=path))
