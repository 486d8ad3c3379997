"""Several models on one prompt: the page, and its way to the models, which is the API's own."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api import body, errors
from api.chat import routes as chat
from api.chat.request import ChatCreate
from api.console import session
from api.console.rendering import HEADERS, ConsoleRoute, page
from api.console.session import Visitor
from api.context import Context, Ctx
from api.jobs import response
from api.validation import validated
from db.tenant import adapters, jobs

router = APIRouter(prefix="/console", include_in_schema=False)
pages = APIRouter(prefix="/console", include_in_schema=False, route_class=ConsoleRoute)
MOST: Final = 200  # adapters, and jobs that train, to choose from
BESIDE: Final = 3
Names = Annotated[list[str], Query(max_length=BESIDE)]


@pages.get("/playground")
async def playground(request: Request, visitor: Visitor, context: Ctx, model: Names = []) -> Response:  # noqa: B006  # FastAPI copies it
    """Which models are chosen is in the address."""
    models = await run_in_threadpool(_models, visitor.id, context)
    known = {name for _, names in models for name, _ in names}
    chosen = [*(m for m in model if m in known), *[""] * BESIDE][:BESIDE]
    if not any(chosen) and models[0][1]:
        chosen[0] = models[0][1][0][0]
    return page(request, "playground.html", models=models, chosen=chosen)


def _models(tenant: str, context: Context) -> list[tuple[str, list[tuple[str, str]]]]:
    """(title, [(name, what is shown of it)]): those that train first of the tenant's own."""
    with context.transaction(tenant) as opened:
        newest, _ = jobs.page(tenant, opened, limit=MOST)
        made, _ = adapters.page(tenant, opened, limit=MOST)
        live = [(name, f"{job.spec.get('suffix') or job.id}, live") for job in newest if (name := response.live(job))]
        done = [(row.name, row.name) for row in made]
    bases = [(name, name) for name in sorted(context.settings.models)]
    return [("Base models", bases), ("Training now", live), ("Adapters", done)]


@router.post("/chat")
async def said(request: Request, visitor: Visitor, context: Ctx) -> Response:
    """As POST /v1/chat/completions, for a page of this session's: its token is in a header, which no other site's page
    can set."""
    session.trusted(request, request.headers.get("x-onward-form", ""))
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise errors.invalid("The body is JSON.", None)
    asked = validated(ChatCreate, await body.whole(request, context.settings))
    answer = await chat.answered(request, asked, visitor, context)
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer
