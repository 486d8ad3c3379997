"""Steps of a job by number, as its tenant asks for them: every function takes the tenant first. Knows no journal.

A worker rebuilds what is asked for (`db/worker/restorations.py`); what comes of it is a cache, which goes in time.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from db.contract.journal_row import replay_of
from db.ids import adapter_name, job_of, of_checkpoint
from db.tables import Adapter, Job, Point, Restoration, RestoredChunk
from db.tenant import adapters

MOST = 8  # asked for by a tenant at one time
TRY_AGAIN = timedelta(minutes=1)  # how long a failure is the answer


class TooManyAsked(Exception):
    """`most` steps of the tenant are being rebuilt already."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} are asked for")
        self.most = most


@dataclass(frozen=True)
class Step:
    """The adapter of `job` after `step` steps, which are committed. `adapter` is what the job has published, if it
    has: where it is of this step, nothing need be rebuilt."""

    job: Job
    step: int
    adapter: Adapter | None

    @property
    def published(self) -> Adapter | None:
        return self.adapter if self.adapter is not None and self.adapter.step == self.step else None


def find(tenant: str, session: Session, job_id: str, step: int) -> Step | None:
    """That step of the tenant's job; None for one that it has not come to, and where its adapter was deleted."""
    job = session.scalar(select(Job).where(Job.tenant_id == tenant, Job.id == job_id))
    if job is None or step > job.step:
        return None
    adapter = adapters.of_job(tenant, session, job_id)
    return None if adapter is not None and adapter.deleted_at is not None else Step(job, step, adapter)


def kept(tenant: str, session: Session, of: Job) -> set[int] | None:
    """Of a job whose journal is not enough, the steps that can be had: the points that are kept while it has not ended,
    its beginning and what it has published. None where any step can be."""
    if replay_of(of.spec) != "snapshots":
        return None
    points = select(Point.step).where(Point.tenant_id == tenant, Point.job_id == of.id, Point.number == 0)
    adapter = adapters.of_job(tenant, session, of.id)
    return {0, *session.scalars(points), *([] if adapter is None else [adapter.step])}


def named(tenant: str, session: Session, name: str) -> Step | None:
    """The step that the tenant's name `ft:…:ckpt-step-N` says, of a job that may have published nothing."""
    parts = of_checkpoint(name)
    found = None if parts is None else find(tenant, session, job_of(parts[0]), parts[1])
    if found is None or parts is None or found.job.spec is None:
        return None
    job = found.job
    return found if adapter_name(job.model, tenant, job.spec.get("suffix"), job.id) == parts[0] else None


def ask(tenant: str, session: Session, of: Step) -> Restoration:
    """Where the step is: asked for now, unless it was before. A failure is forgotten after a minute. Raises
    TooManyAsked."""
    mine = Restoration.tenant_id == tenant, Restoration.state == "asked"
    again = Restoration.state == "failed", Restoration.asked_at < func.now() - literal(TRY_AGAIN)
    session.execute(delete(Restoration).where(*_is(tenant, of.job.id, of.step), *again))
    found = get(tenant, session, of.job.id, of.step)
    if found is not None:
        return found
    if (session.scalar(select(func.count()).select_from(Restoration).where(*mine)) or 0) >= MOST:
        raise TooManyAsked(MOST)
    row = {"tenant_id": tenant, "job_id": of.job.id, "step": of.step}
    session.execute(insert(Restoration).values(**row).on_conflict_do_nothing())
    return session.scalars(select(Restoration).where(*_is(tenant, of.job.id, of.step))).one()


def get(tenant: str, session: Session, job_id: str, step: int) -> Restoration | None:
    """Where the step is, if it was asked for and has not gone since."""
    return session.scalar(select(Restoration).where(*_is(tenant, job_id, step)))


def chunk(tenant: str, session: Session, job_id: str, step: int, number: int) -> bytes | None:
    """The `number`-th piece of the tar, from 0; None past the last, and of what is not the tenant's."""
    mine = RestoredChunk.tenant_id == tenant, RestoredChunk.job_id == job_id, RestoredChunk.step == step
    return session.scalar(select(RestoredChunk.data).where(*mine, RestoredChunk.number == number))


def drop(tenant: str, session: Session, job_id: str, step: int | None = None) -> bool:
    """Forget what was rebuilt of the job, or of that step alone; whether there was anything."""
    which = Restoration.tenant_id == tenant, Restoration.job_id == job_id
    gone = delete(Restoration).where(*which, *(() if step is None else (Restoration.step == step,)))
    return bool(session.execute(gone.execution_options(synchronize_session=False)).rowcount)  # type: ignore[attr-defined]


def _is(tenant: str, job_id: str, step: int) -> tuple[ColumnElement[bool], ...]:
    return Restoration.tenant_id == tenant, Restoration.job_id == job_id, Restoration.step == step
