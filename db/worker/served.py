"""What an adapter that requests wear is read from: whose job it is, and what it has published. Knows no file's bytes.

It needs no claim and writes nothing: any worker of the base serves any job's adapter."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.contract.spec import SPEC_VERSION, JobSpec, stored
from db.tables import Adapter, Job, Result


@dataclass(frozen=True)
class Owned:
    """Whose the job is, the base model that it adapts, and its committed steps; `known` where its spec is one that this
    release reads."""

    tenant_id: str
    model: str
    step: int
    known: bool


@dataclass(frozen=True)
class Shown:
    """What a job has published after `step` steps: the SHA-256 (hex) of its weights, the file that holds the PEFT
    directory, and that of its receipt, if it has one; `deleted` where its tenant has."""

    step: int
    sha256: str
    file_id: str
    receipt_id: str | None
    deleted: bool


def owned(session: Session, job_id: str) -> Owned | None:
    """The job of any tenant. For a session that looks across tenants."""
    wanted = select(Job.tenant_id, Job.model, Job.step, Job.spec_version <= SPEC_VERSION).where(Job.id == job_id)
    found = session.execute(wanted).one_or_none()
    return None if found is None else Owned(*found)


def spec(session: Session, job_id: str) -> JobSpec | None:
    """The job's, None where its rows have not decided it. This, and what follows, is for a session in its tenant's
    name."""
    row = session.scalar(select(Job.spec).where(Job.id == job_id, Job.decided_at.is_not(None)))
    return None if row is None else stored(row)


def shown(session: Session, job_id: str) -> Shown | None:
    """What the job has published; None where it has not."""
    row = session.scalar(select(Adapter).where(Adapter.job_id == job_id))
    if row is None:
        return None
    receipt = session.scalar(select(Result.file_id).where(Result.job_id == job_id, Result.kind == "receipt"))
    return Shown(row.step, row.sha256, row.file_id, receipt, row.deleted_at is not None)
