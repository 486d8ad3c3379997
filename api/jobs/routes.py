"""/v1/fine_tuning/jobs: accepted, priced, listed, steered and followed. Knows what is asked, not how it is trained."""

import hashlib
import json
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from api import body, errors, missing, validation
from api.auth import Tenant
from api.context import Context, Ctx
from api.flights import attended
from api.jobs import admission, response
from api.jobs.activation import Uncounted
from api.jobs.request import JobCreate
from api.jobs.response import Beside, CheckpointObject, EventObject, JobObject
from api.pagination import Page, page
from db import files, queue
from db.contract.admit import Admitted
from db.contract.spec import JobSpec
from db.tables import ENDED, Job
from db.tenant import adapters, curves, jobs, restorations, results
from db.tenant.waiting import waiting

log = structlog.get_logger("api.jobs.routes")
router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])
SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobCreate"}}},
    }
}
After = Annotated[str | None, Query(description="The id that the page before ended with.")]
T = TypeVar("T")
Limit = Annotated[int, Query(ge=1, le=100)]


async def sent(request: Request, _tenant: Tenant, context: Ctx) -> bytes:
    """The body, read once the key is known to be good."""
    return await body.whole(request, context.settings)


@dataclass(frozen=True)
class Submission:
    """One request for a job, and what tells whether it was made before."""

    body: JobCreate
    tenant: str
    context: Context
    idempotency_key: str | None
    is_retry: bool

    @property
    def request(self) -> dict[str, Any]:
        return self.body.model_dump(mode="json", exclude_unset=True)

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.request, sort_keys=True).encode()).hexdigest()

    def earlier(self) -> JobObject | None:
        """The job that this request made before, whatever has become of its files and its model since."""
        if self.idempotency_key is None and not self.is_retry:
            return None
        with self.context.transaction(self.tenant) as session:
            job = jobs.earlier(self.tenant, session, self.hash, self.idempotency_key, self.is_retry)
            return None if job is None else shown(self.tenant, session, job)

    def queued(self, admitted: Admitted) -> JobObject:
        return self._made(admitted.spec, admitted)

    def validating(self, spec: JobSpec) -> JobObject:
        """Its files are counted outside of the request, and decide it then."""
        return self._made(spec, None)

    def _made(self, spec: JobSpec, admitted: Admitted | None) -> JobObject:
        with self.context.transaction(self.tenant) as session:
            job, created = jobs.create(
                self.tenant,
                session,
                spec=spec,
                request=self.request | (admitted.told if admitted else {}),
                request_hash=self.hash,
                price_tokens=admitted.price.total if admitted else 0,
                idempotency_key=self.idempotency_key,
                is_retry=self.is_retry,
                priority=self.body.onward.priority or 0,
                remarks=admitted.remarks if admitted else (),
                validating=admitted is None,
            )
            if created and admitted is not None:
                queue.ring_after_commit(session, queue.bell(job.model, job.autograd), self.context.ring)
            answer = shown(self.tenant, session, job)
        if created:
            log.info(job.state, job=job.id, model=job.model, steps=job.total_steps, tokens=job.price_tokens)
        return answer


@router.post("", openapi_extra=SCHEMA)
async def create(
    request: Request,
    raw: Annotated[bytes, Depends(sent)],
    tenant: Tenant,
    context: Ctx,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    x_stainless_retry_count: Annotated[str, Header()] = "0",
) -> JobObject:
    """Accepts a job and says what it costs, exactly; of a large file that nobody has counted under the model before
    once the job's status is no longer `validating_files`. With an `Idempotency-Key`, or when the openai client repeats
    a request, the job made the first time is the answer."""
    is_retry = idempotency_key is None and x_stainless_retry_count not in ("", "0")

    async def attend(work: Coroutine[Any, Any, T]) -> T:
        return await attended(request, context.ending, work)

    def begin() -> tuple[Submission, JobObject | admission.Prepared]:
        body = validation.validated(JobCreate, raw)
        submission = Submission(body, tenant.id, context, idempotency_key, is_retry)
        if (made := submission.earlier()) is not None:
            return submission, made
        context.rates.charge("jobs", tenant.id, context.settings.jobs_a_minute)
        return submission, admission.prepared(body, tenant.id, context, attend)

    submission, found = await run_in_threadpool(begin)
    if isinstance(found, JobObject):
        return found
    try:
        readings = await found.readings()
    except Uncounted:
        async with context.one_at_a_time(tenant.id):
            made = await run_in_threadpool(submission.validating, found.first)
        request.app.state.validator.wake()
        return made
    async with context.one_at_a_time(tenant.id):
        return await run_in_threadpool(lambda: submission.queued(found.admitted(readings)))


def shown(tenant: str, session: Session, job: Job) -> JobObject:
    return all_shown(tenant, session, [job])[0]


def all_shown(tenant: str, session: Session, found: list[Job]) -> list[JobObject]:
    """Only an ended job can have published an adapter and left results."""
    waits = waiting(tenant, session, found)
    ended = {job.id for job in found if job.state in ENDED}
    made = {job_id: adapters.of_job(tenant, session, job_id) for job_id in ended}
    left, rows = results.of_jobs(tenant, session, ended), jobs.rows(tenant, session, found)
    drift = {job_id: curves.drift(tenant, session, job_id) for job_id, adapter in made.items() if adapter is not None}
    beside = {
        job.id: Beside(made.get(job.id), left.get(job.id, ()), rows.get(job.training_file), drift.get(job.id))
        for job in found
    }
    return [response.job(job, beside[job.id], waits.get(job.id)) for job in found]


@router.get("")
def list_jobs(
    request: Request, tenant: Tenant, context: Ctx, after: After = None, limit: Limit = 20
) -> Page[JobObject]:
    """Newest first. `metadata[key]=value`, as often as wanted, keeps the jobs that carry all of these pairs."""
    pairs = {
        key: value
        for name, value in request.query_params.multi_items()
        for key in re.findall(r"^metadata\[(.+)\]$", name)
    }
    with context.transaction(tenant.id) as session:
        found, more = jobs.page(tenant.id, session, after=after, limit=limit, metadata=pairs)
        return page(all_shown(tenant.id, session, found), more)


@router.get("/{job_id}")
def retrieve(job_id: str, tenant: Tenant, context: Ctx) -> JobObject:
    with context.transaction(tenant.id) as session:
        return shown(tenant.id, session, errors.found(jobs.get(tenant.id, session, job_id), missing.job(job_id)))


@router.post("/{job_id}/cancel")
def cancel(job_id: str, tenant: Tenant, context: Ctx) -> JobObject:
    """A waiting job ends at once, a running one at its next step: `onward.wish` says `cancel` until then."""
    with context.transaction(tenant.id) as session:
        return shown(tenant.id, session, errors.found(jobs.cancel(tenant.id, session, job_id), missing.job(job_id)))


@router.post("/{job_id}/pause")
def pause(job_id: str, tenant: Tenant, context: Ctx) -> JobObject:
    """A waiting job pauses at once, a running one at its next step."""
    with context.transaction(tenant.id) as session:
        return shown(tenant.id, session, errors.found(jobs.pause(tenant.id, session, job_id), missing.job(job_id)))


@router.post("/{job_id}/resume")
def resume(job_id: str, tenant: Tenant, context: Ctx) -> JobObject:
    """A paused job waits for a worker again and goes on at the step it stopped at."""
    with context.transaction(tenant.id) as session:
        job = errors.found(jobs.resume(tenant.id, session, job_id), missing.job(job_id))
        queue.ring_after_commit(session, queue.bell(job.model, job.autograd), context.ring)
        return shown(tenant.id, session, job)


@router.get("/{job_id}/events")
def events(job_id: str, tenant: Tenant, context: Ctx, after: After = None, limit: Limit = 20) -> Page[EventObject]:
    """Newest first."""
    start = numbered(after, rf"ftevent-{re.escape(job_id.partition('-')[2])}-(\d{{1,9}})")
    with context.transaction(tenant.id) as session:
        errors.found(jobs.get(tenant.id, session, job_id), missing.job(job_id))
        found, more = jobs.events(tenant.id, session, job_id, after=start, limit=limit)
        return page([response.event(row) for row in found], more)


@router.get("/{job_id}/checkpoints")
def checkpoints(
    job_id: str, tenant: Tenant, context: Ctx, after: After = None, limit: Limit = 10
) -> Page[CheckpointObject]:
    """The evaluated steps, newest first."""
    start = numbered(after, rf"ftckpt-{re.escape(job_id.partition('-')[2])}-(\d{{1,9}})")
    with context.transaction(tenant.id) as session:
        job = errors.found(jobs.get(tenant.id, session, job_id), missing.job(job_id))
        found, more = jobs.checkpoints(tenant.id, session, job_id, after=start, limit=limit)
        file = files.get(tenant.id, session, job.validation_file or "")
        rows = file.rows if file is not None else job.spec.get("held_out") or None
        kept = restorations.kept(tenant.id, session, job)
        return page([response.checkpoint(row, job, rows, kept) for row in found], more)


def numbered(after: str | None, pattern: str) -> int | None:
    """The number in a cursor; raises ApiError 400 for one that no page of this list has ended with."""
    if after is None:
        return None
    match = re.fullmatch(pattern, after)
    if match is None:
        raise errors.unknown_cursor(after)
    return int(match[1])
