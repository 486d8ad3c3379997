"""Jobs as their tenant sees them. Every function takes the tenant first; a foreign id is an unknown id.

Knows no lease's inside: a job that a worker holds is only wished upon, and the worker obeys at its next step.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import Select, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from db import audit, transitions
from db.contract.choosing import said
from db.contract.held_out import Remark
from db.contract.spec import SPEC_VERSION, JobSpec
from db.events import write as write_event
from db.ids import UnknownCursor, new_id
from db.tables import Evaluation, Event, File, Job, Lease, Tenant, Validation
from db.tables.jobs import METADATA
from db.telemetry import traces
from db.tenant import parents
from db.tenant.quotas import check_jobs, check_tokens
from db.tenant.waiting import waiting, warn_if_unserved
from db.transitions import TABLE, Wish, WrongState, condition

Row = TypeVar("Row")
RETRY_WINDOW = timedelta(minutes=10)


class IdempotencyConflict(Exception):
    """The idempotency key was used before with another request."""


class MissingFile(Exception):
    """The file is not the tenant's, or was deleted while the request was on its way."""

    def __init__(self, file_id: str) -> None:
        super().__init__(file_id)
        self.file_id = file_id


def create(
    tenant: str,
    session: Session,
    *,
    spec: JobSpec,
    request: dict[str, Any],
    request_hash: str,
    price_tokens: int,
    idempotency_key: str | None,
    priority: int = 0,
    is_retry: bool = False,
    remarks: Sequence[Remark] = (),
    validating: bool = False,
) -> tuple[Job, bool]:
    """The queued job of this request, and whether this call made it. Where `validating`, its price is not known yet:
    its files are counted first (`db/tenant/validations.py`), and `spec` is what no row decides.

    The same idempotency key and body give the first job again; so does, without a key, a client's retry
    (`is_retry`) of a body accepted in the last ten minutes. Raises IdempotencyConflict, QuotaExceeded, MissingFile, and
    what `parents.check` does.
    """
    # One create of a tenant at a time: quota and idempotency are decided on what is committed.
    mine = select(Tenant).where(Tenant.id == tenant).with_for_update(key_share=True)
    owner = session.scalars(mine.execution_options(populate_existing=True)).one()
    made = earlier(owner.id, session, request_hash, idempotency_key, is_retry)
    if made is not None:
        return made, False
    check_jobs(owner, session)
    check_tokens(owner, session, max(price_tokens, 1))
    _check_files(owner.id, session, spec)
    parents.check(owner.id, session, spec)
    asked: dict[str, Any] = {"price_tokens": price_tokens, "priority": priority, "idempotency_key": idempotency_key}
    job = Job(id=new_id("ftjob-"), tenant_id=owner.id, request=request, request_hash=request_hash, **_of(spec), **asked)
    if validating:
        transitions.validate(job)
    session.add(job)
    session.flush()
    _tell(session, job, spec, validating, remarks)
    return job, True


def _tell(session: Session, job: Job, spec: JobSpec, validating: bool, remarks: Sequence[Remark]) -> None:
    """What a new job is, to its tenant and to the audit log."""
    about: dict[str, Any] = {"model": job.model}
    if validating:
        session.add(Validation(job_id=job.id, tenant_id=job.tenant_id, model=job.model))
        write_event(session, job, f"Job created: {' and '.join(sorted(_files(spec)))} are being validated")
    else:
        job.expected_start = waiting(job.tenant_id, session, [job])[job.id].estimated_start
        write_event(session, job, f"Job created: {said(spec.steps, job.price_tokens, job.request)}")
        about |= {"steps": job.total_steps, "price_tokens": job.price_tokens}
    for remark in remarks:
        write_event(session, job, remark.message, remark.level)
    audit.write(session, job.tenant_id, "job.create", job.id, about)
    warn_if_unserved(session, job)


def earlier(tenant: str, session: Session, request_hash: str, key: str | None, is_retry: bool) -> Job | None:
    """The job that the same request made before: found by its idempotency key or, without one, where it is a client's
    retry of a body accepted in the last ten minutes. Raises IdempotencyConflict."""
    mine = select(Job).where(Job.tenant_id == tenant)
    if key is not None:
        job = session.scalar(mine.where(Job.idempotency_key == key))
        if job is not None and job.request_hash != request_hash:
            raise IdempotencyConflict(key)
        return job
    if not is_retry:
        return None
    same = mine.where(Job.request_hash == request_hash, Job.created_at > func.now() - RETRY_WINDOW)
    return session.scalar(same.order_by(Job.created_at.desc()).limit(1))


def _of(spec: JobSpec) -> dict[str, Any]:
    """The columns that a spec fills, and the trace in which it was asked for."""
    files = {"training_file": spec.training_file, "validation_file": spec.validation_file}
    return decided(spec) | files | {"model": spec.model, "traceparent": traces.traceparent()}


def decided(spec: JobSpec) -> dict[str, Any]:
    """The columns of a spec that its rows have a part in."""
    needs = {"spec_version": SPEC_VERSION, "autograd": spec.method.autograd}
    return {"spec": spec.model_dump(mode="json"), **needs, "total_steps": spec.steps}


def get(tenant: str, session: Session, job_id: str) -> Job | None:
    """The tenant's job."""
    return session.scalar(select(Job).where(Job.tenant_id == tenant, Job.id == job_id))


def rows(tenant: str, session: Session, found: Sequence[Job]) -> dict[str, int]:
    """Of these jobs' training files, deleted or not, how many rows they have."""
    wanted = select(File.id, File.rows).where(File.tenant_id == tenant, File.id.in_({j.training_file for j in found}))
    return {row.id: row.rows for row in session.execute(wanted)}


def page(
    tenant: str,
    session: Session,
    *,
    after: str | None = None,
    limit: int = 20,
    metadata: dict[str, str] | None = None,
) -> tuple[list[Job], bool]:
    """Up to `limit` jobs older than the job `after`, newest first, and whether more follow. Raises UnknownCursor.

    `metadata` keeps the jobs whose request has all its pairs.
    """
    wanted = select(Job).where(Job.tenant_id == tenant).order_by(Job.created_at.desc(), Job.id.desc())
    if metadata:
        wanted = wanted.where(METADATA.op("@>")(literal(metadata, JSONB)))
    if after is not None:
        start = get(tenant, session, after)
        if start is None:
            raise UnknownCursor(after)
        wanted = wanted.where(tuple_(Job.created_at, Job.id) < (start.created_at, start.id))
    return _cut(session.scalars(wanted.limit(limit + 1)).all(), limit)


def cancel(tenant: str, session: Session, job_id: str) -> Job | None:
    """Ends the job: at once, or at the next step of the worker that holds it. Raises WrongState."""
    return _steer(tenant, session, job_id, "cancel")


def pause(tenant: str, session: Session, job_id: str) -> Job | None:
    """Takes the job out of the queue: at once, or at the next step of its worker. Raises WrongState."""
    return _steer(tenant, session, job_id, "pause")


def resume(tenant: str, session: Session, job_id: str) -> Job | None:
    """Queues a paused job again, or takes back a pause its worker has not yet seen. Raises WrongState."""
    job = locked(tenant, session, job_id)
    if job is None:
        return None
    if condition(job) == "being paused":
        transitions.withdraw(job)
    else:
        transitions.resume(job)
        warn_if_unserved(session, job)
    write_event(session, job, f"Job resumed at step {job.step}")
    audit.write(session, tenant, "job.resume", job.id)
    session.flush()
    return job


def events(
    tenant: str, session: Session, job_id: str, *, after: int | None = None, limit: int = 20
) -> tuple[list[Event], bool]:
    """Up to `limit` events with a number below `after`, newest first, and whether more follow. Unknown job: none."""
    wanted = select(Event).where(Event.tenant_id == tenant, Event.job_id == job_id)
    if after is not None:
        wanted = wanted.where(Event.number < after)
    return _cut(session.scalars(wanted.order_by(Event.number.desc()).limit(limit + 1)).all(), limit)


def checkpoints(
    tenant: str, session: Session, job_id: str, *, after: int | None = None, limit: int = 10
) -> tuple[list[Evaluation], bool]:
    """Up to `limit` evaluations of a step before `after`, newest first, and whether more follow. Unknown job: none."""
    wanted = select(Evaluation).where(Evaluation.tenant_id == tenant, Evaluation.job_id == job_id)
    if after is not None:
        wanted = wanted.where(Evaluation.step < after)
    return _cut(session.scalars(wanted.order_by(Evaluation.step.desc()).limit(limit + 1)).all(), limit)


def _cut(found: Sequence[Row], limit: int) -> tuple[list[Row], bool]:
    return list(found[:limit]), len(found) > limit


def locked(tenant: str, session: Session, job_id: str) -> Job | None:
    """The tenant's job, its row locked."""
    wanted: Select[Job] = select(Job).where(Job.tenant_id == tenant, Job.id == job_id)
    return session.scalar(wanted.with_for_update(key_share=True).execution_options(populate_existing=True))


def _steer(tenant: str, session: Session, job_id: str, wish: Wish) -> Job | None:
    job = locked(tenant, session, job_id)
    if job is None:
        return None
    if job.wish in ("cancel", wish):  # a cancel overrules a pause; nothing is wished twice
        raise WrongState(condition(job), TABLE[wish].word)
    if _is_held(session, job):
        transitions.wish(job, wish)
    else:
        transitions.obey(session, job, wish)
    audit.write(session, tenant, f"job.{wish}", job.id)
    session.flush()
    return job


def _is_held(session: Session, job: Job) -> bool:
    live = select(Lease.job_id).where(Lease.job_id == job.id, Lease.expires_at > func.clock_timestamp())
    return job.state == "running" and session.scalar(live) is not None


def _check_files(tenant: str, session: Session, spec: JobSpec) -> None:
    for file_id in _files(spec):
        # Shared lock: a delete that is under way is waited for, and the bytes cannot go before this job is seen.
        there = select(File.id).where(File.tenant_id == tenant, File.id == file_id, File.deleted_at.is_(None))
        if session.scalar(there.with_for_update(read=True)) is None:
            raise MissingFile(file_id)


def _files(spec: JobSpec) -> set[str]:
    return {file for file in (spec.training_file, spec.validation_file) if file is not None}
