"""Pages of jobs: the list, one job with its curves, several side by side, and what steers them. Knows no SQL."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api import errors, missing
from api.console import session
from api.console.curves import MEASURES, curves, differences, thinned
from api.console.rendering import HEADERS, ConsoleRoute, moved, page
from api.console.session import Visitor
from api.context import Context, Ctx
from api.jobs import routes
from api.jobs.response import JobObject
from db.tables import ENDED
from db.tenant import curves as told
from db.tenant import jobs

router = APIRouter(prefix="/console", include_in_schema=False, route_class=ConsoleRoute)
SHOWN: Final = 25  # jobs on a page
BESIDE: Final = 4  # jobs in a comparison
POINTS: Final = 1500  # of one curve
ACTS: Final = {"pause": routes.pause, "resume": routes.resume, "cancel": routes.cancel}
Ids = Annotated[list[str], Query(max_length=64)]


@router.get("")
@router.get("/")
def start(request: Request) -> Response:
    return moved(request, "jobs")


@router.get("/jobs")
def list_jobs(request: Request, visitor: Visitor, context: Ctx, after: str | None = None) -> Response:
    """All jobs, newest first; htmx asks for the table alone, every few seconds."""
    found = routes.list_jobs(request, visitor, context, after, SHOWN)
    template = "jobs_table.html" if request.headers.get("hx-request") == "true" else "jobs.html"
    return page(request, template, jobs=found.data, more=found.has_more, after=after, ended=ENDED)


@router.get("/compare")
def compare(request: Request, visitor: Visitor, context: Ctx, job: Ids = []) -> Response:  # noqa: B006  # FastAPI copies it
    """Curves of up to four jobs over one another, and the settings in which they differ."""
    wanted = list(dict.fromkeys(job))[:BESIDE]
    found = [routes.retrieve(name, visitor, context) for name in wanted]
    specs = [one.onward["spec"] or {} for one in found]
    return page(request, "compare.html", jobs=found, differences=differences(specs), ended=ENDED)


@router.get("/jobs/{job_id}")
def show(request: Request, job_id: str, visitor: Visitor, context: Ctx) -> Response:
    """One job; htmx asks for what changes, every few seconds until it has ended."""
    job = routes.retrieve(job_id, visitor, context)
    events = routes.events(job_id, visitor, context, None, 30).data
    steps = routes.checkpoints(job_id, visitor, context, None, 30).data
    said = [event for event in events if event.type == "message"]
    template = "job_now.html" if request.headers.get("hx-request") == "true" else "job.html"
    return page(request, template, job=job, events=said, steps=steps, ended=ENDED, acts=acts(job))


def acts(job: JobObject) -> tuple[str, ...]:
    """What can be asked of it now."""
    if job.status in ENDED:
        return ()
    return ("resume", "cancel") if job.status == "paused" else ("pause", "cancel")


@router.post("/jobs/{job_id}/{act}")
async def steer(request: Request, job_id: str, act: str, visitor: Visitor, context: Ctx) -> Response:
    """Pause, resume or cancel; back to the job's page."""
    sent = await session.fields(request, context)
    session.trusted(request, sent.get("csrf", ""))
    if act not in ACTS:
        raise errors.ApiError(404, f"There is no such act: {act[:40]}")
    await run_in_threadpool(ACTS[act], job_id, visitor, context)
    return moved(request, f"jobs/{job_id}")


@router.get("/jobs/{job_id}/points")
def points(job_id: str, visitor: Visitor, context: Ctx) -> Response:
    """The job's curves as JSON: of each measure the points [step, seconds, value], and whether more can come."""
    found, ended = _points(visitor.id, context, job_id)
    return JSONResponse({"curves": found, "ended": ended}, headers=dict(HEADERS))


def _points(tenant: str, context: Context, job_id: str) -> tuple[dict[str, Any], bool]:
    with context.transaction(tenant) as opened:
        job = errors.found(jobs.get(tenant, opened, job_id), missing.job(job_id))
        found, ended = curves(told.metrics(tenant, opened, job_id), job.started_at), job.state in ENDED
    return {name: thinned(found[name], POINTS) for name in MEASURES}, ended
