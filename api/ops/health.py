"""Whether the process lives, whether it can answer, and what Prometheus scrapes. Knows no tenant."""

from typing import Literal

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from sqlalchemy import text

from api import errors
from api.context import Context, Ctx
from db import queue

router = APIRouter(tags=["health"])
scraped = APIRouter(tags=["health"])  # left out where metrics have a port of their own
Part = Literal["ok", "away"]
State = Literal["ok", "away", "draining"]


class Readiness(BaseModel):
    """`broker` away is no reason to send requests elsewhere: jobs are accepted, and workers find them by sweeping."""

    status: State
    database: Part
    broker: Part


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers. Says nothing of what it needs: restarting the API does not bring a database back."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": Readiness}})
async def readyz(context: Ctx) -> JSONResponse:
    """200 where PostgreSQL answers and this process has not been told to end. It waits for no request's thread."""
    return await to_thread.run_sync(readiness, context, limiter=context.probing)


def readiness(context: Context) -> JSONResponse:
    def database() -> None:
        with context.sessions.begin() as session:
            session.execute(text("SELECT 1"))

    answers = errors.reachable(database)
    broker = errors.reachable(lambda: queue.ping(context.settings.redis_url))
    status: State = "draining" if context.draining.is_set() else _part(answers)
    state = Readiness(status=status, database=_part(answers), broker=_part(broker))
    return JSONResponse(state.model_dump(), 200 if status == "ok" else 503)


@scraped.get("/metrics", response_class=Response)
def metrics(request: Request) -> Response:
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)


def _part(answers: bool) -> Part:
    return "ok" if answers else "away"
