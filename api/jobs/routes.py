"""/v1/fine_tuning/jobs: accepted, priced, listed, steered and followed. Knows what is asked, not how it is trained."""

import hashlib
import json
import re
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request
from sqlalchemy.orm import Session

from api import body, errors, missing
from api.auth import Tenant
from api.context import Ctx
from api.jobs import admission, response
from api.jobs.request import JobCreate
from api.jobs.response import CheckpointObject, EventObject, JobObject
from api.pagination import Page, page
from db import files, queue
from db.tables import ENDED, Job
from db.tenant import adapters, jobs
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
Limit = Annotated[int, Query(ge=1, le=100)]


async def sent(request: Request, _tenant: Tenant, context: Ctx) -> bytes:
    """The body, read once the key is known to be good."""
    return await body.whole(request, context.settings.max_request_bytes)


@router.post("", openapi_extra=SCHEMA)
def create(
    raw: Annotated[bytes, Depends(sent)],
    tenant: Tenant,
    context: Ctx,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    x_stainless_retry_count: Annotated[str, Header()] = "0",
) -> JobObject:
    """Accepts a job and says what it costs, exactly. With an `Idempotency-Key`, or when the openai client repeats a
    request, the job made the first time is the answer."""
    asked = errors.validated(JobCreate, raw)
    admitted = admission.admitted(asked, tenant.id, context)
    request = asked.model_dump(mode="json", exclude_unset=True)
    price = {"training": admitted.price.training, "evaluation": admitted.price.evaluation}
    found = {"price": price, "invocation": admitted.invocation}
    with context.transaction(tenant.id) as session:
        job, created = jobs.create(
            tenant.id,
            session,
            spec=admitted.spec,
            request=request | found,
            request_hash=hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest(),
            price_tokens=admitted.price.total,
            idempotency_key=idempotency_key,
            priority=asked.onward.priority or 0,
            is_retry=idempotency_key is None and x_stainless_retry_count not in ("", "0"),
        )
        if created:
            queue.ring_after_commit(session, job.model, context.ring)
        answer = shown(tenant.id, session, job)
    if created:
        log.info("queued", job=job.id, model=job.model, steps=job.total_steps, tokens=job.price_tokens)
    return answer


def shown(tenant: str, session: Session, job: Job) -> JobObject:
    return all_shown(tenant, session, [job])[0]


def all_shown(tenant: str, session: Session, found: list[Job]) -> list[JobObject]:
    """Only an ended job can have published an adapter."""
    waits = waiting(tenant, session, found)
    ended = {job.id for job in found if job.state in ENDED}
    made = {job_id: adapters.of_job(tenant, session, job_id) for job_id in ended}
    return [response.job(job, made.get(job.id), waits.get(job.id)) for job in found]


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
        queue.ring_after_commit(session, job.model, context.ring)
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
        rows = file.rows if file is not None else None
        return page([response.checkpoint(row, job, rows) for row in found], more)


def numbered(after: str | None, pattern: str) -> int | None:
    """The number in a cursor; raises ApiError 400 for one that no page of this list has ended with."""
    if after is None:
        return None
    match = re.fullmatch(pattern, after)
    if match is None:
        raise errors.invalid(f"Invalid value for 'after': {after[:100]}", "after", "invalid_value")
    return int(match[1])
