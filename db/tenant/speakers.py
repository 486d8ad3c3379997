"""Who answers a chat: a tenant's name for a model, resolved to a base model and a committed step. Knows no engine.

Every function takes the tenant first. A name that is not its own, deleted, or of no job is an unknown name.
"""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.ids import adapter_name, checkpoint_name, job_of, of_live, worn
from db.tables import Adapter, Job, Lease
from db.tenant import adapters, restorations

STATES = {"validating_files": "being validated", "queued": "queued", "paused": "paused"}


@dataclass(frozen=True)
class Speaker:
    """A base model, and the adapter that it wears (`<job>@<step>`), if any. `name` is what repeats it exactly.
    `invocation` are the ids from which an adapter of activation `answer` acts. Of a live one `holder` is the worker
    that trains it."""

    base: str
    name: str
    wears: str | None = None
    invocation: tuple[int, ...] = ()
    holder: str | None = None


@dataclass(frozen=True)
class NotLive:
    """The job of a `…:live` trains no more, or not yet: `what` it is, its last step, and the name to use instead."""

    what: str
    step: int
    instead: str


@dataclass(frozen=True)
class NotKept:
    """A step of a job whose journal is not enough, and that was not kept whole; the `steps` that can be had."""

    step: int
    steps: tuple[int, ...]


Found = Speaker | NotLive | NotKept | None


def find(tenant: str, session: Session, name: str) -> Found:
    """Who is called `name`, of a tenant's own. None: nobody is."""
    if (adapter := of_live(name)) is not None:
        return _live(tenant, session, adapter)
    if (step := restorations.named(tenant, session, name)) is not None:
        kept = restorations.kept(tenant, session, step.job)
        if kept is not None and step.step not in kept:
            return NotKept(step.step, tuple(sorted(kept)))
        return _speaker(step.job, step.step, name)
    row = adapters.get(tenant, session, name)
    if row is None:
        return None
    return _speaker(adapters.makers(tenant, session, [row])[row.job_id], row.step, row.name)


def _live(tenant: str, session: Session, adapter: str) -> Found:
    job = session.scalar(select(Job).where(Job.tenant_id == tenant, Job.id == job_of(adapter)))
    if job is None or job.spec is None or adapter_name(job.model, tenant, _suffix(job), job.id) != adapter:
        return None
    published = adapters.of_job(tenant, session, job.id)
    if published is not None and published.deleted_at is not None:
        return None
    step = _newest(tenant, session, job)
    if job.state != "running" or not step:
        return NotLive(_what(job), step, _instead(job, adapter, step, published))
    holder = select(Lease.worker_id).where(Lease.job_id == job.id, Lease.expires_at > func.clock_timestamp())
    return _speaker(job, step, checkpoint_name(adapter, step), session.scalar(holder))


def _suffix(job: Job) -> str | None:
    suffix = (job.spec or job.request).get("suffix")
    return suffix if isinstance(suffix, str) else None


def _newest(tenant: str, session: Session, job: Job) -> int:
    """The newest step that can be had: the last committed one, or where no journal leads to it the last kept whole."""
    kept = restorations.kept(tenant, session, job)
    return job.step if kept is None else max((step for step in kept if step <= job.step), default=0)


def _what(job: Job) -> str:
    if job.state == "running":
        return "at its beginning and has committed no step yet"
    return STATES.get(job.state, f"over ({job.state})")


def _instead(job: Job, adapter: str, step: int, published: Adapter | None) -> str:
    if published is not None:
        return published.name
    return checkpoint_name(adapter, step) if step else job.model


def _speaker(job: Job, step: int, name: str, holder: str | None = None) -> Speaker:
    about = job.spec["adapter"]
    acts = tuple(about["invocation"]) if about.get("activation", "all") == "answer" else ()
    return Speaker(job.model, name, worn(job.id, step), acts, holder)
