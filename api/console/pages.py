"""Pages around the jobs: signing in and out, files, keys and use, and the console's own files."""

from contextlib import AsyncExitStack
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from api import body, errors, files
from api.console import session
from api.console.preview import BYTES, Shown, preview
from api.console.rendering import ASSETS, HEADERS, KINDS, ConsoleRoute, moved, page
from api.console.session import Visitor
from api.context import Context, Ctx
from db import files as stored
from db.contract.rows.jsonl import BadRow
from db.tenant import keys
from db.usage import RECENT, recent_tokens, today

router = APIRouter(prefix="/console", include_in_schema=False, route_class=ConsoleRoute)
LISTED: Final = 100  # files on the page


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """A file of the console's; a changed one has another address, so that browsers keep it."""
    if name not in ASSETS:
        raise HTTPException(404)
    kept = HEADERS | {"cache-control": "public, max-age=31536000, immutable"}
    return FileResponse(ASSETS[name], media_type=KINDS[ASSETS[name].suffix], headers=kept)


@router.get("/login")
def login(request: Request) -> Response:
    return page(request, "login.html", wrong=None)


@router.post("/login")
async def enter(request: Request, context: Ctx) -> Response:
    """A good key becomes the session."""
    session.same_site(request)
    key = (await session.fields(request, context)).get("key", "").strip()
    try:
        await run_in_threadpool(session.checked, request, context, key)
    except errors.ApiError as error:
        if error.status not in (401, 403):
            raise
        return page(request, "login.html", error.status, wrong=error.message)
    entered = moved(request, "jobs")
    session.begin(entered, request, key)
    return entered


@router.post("/logout")
async def leave(request: Request, context: Ctx) -> Response:
    session.trusted(request, (await session.fields(request, context)).get("csrf", ""))
    left = moved(request, "login")
    session.end(left, request)
    return left


@router.get("/files")
def list_files(request: Request, visitor: Visitor, context: Ctx) -> Response:
    found = files.list_files(visitor, context, None, LISTED, None, "desc")
    return page(request, "files.html", files=found.data, more=found.has_more, wrong=None)


@router.post("/files")
async def upload(request: Request, visitor: Visitor, context: Ctx) -> Response:
    """As POST /v1/files; the errors of a file stand at their lines."""
    declared = body.declared(request)
    await run_in_threadpool(files.begin, visitor.id, context, declared)
    form = await body.form(request, context.settings)
    async with AsyncExitStack() as last:
        last.push_async_callback(form.close)
        session.trusted(request, str(form.get("csrf", "")))
        sent = form.get("file")
        if not isinstance(sent, UploadFile) or not sent.filename:
            raise errors.invalid("Choose a file.", "file")
        name = sent.filename
        try:
            made = await run_in_threadpool(files.store, visitor.id, context, sent.file, name, declared, None)
        except BadRow as error:
            wrong = f"{name}: line {error.line}: {error.reason}"
            return await run_in_threadpool(_refused, request, visitor, context, wrong)
    return moved(request, f"files/{made.id}")


def _refused(request: Request, visitor: Visitor, context: Context, wrong: str) -> Response:
    found = files.list_files(visitor, context, None, LISTED, None, "desc")
    return page(request, "files.html", 400, files=found.data, more=found.has_more, wrong=wrong)


@router.get("/files/{file_id}")
async def look(
    request: Request, file_id: str, visitor: Visitor, context: Ctx, model: str | None = None, acts: str = "all"
) -> Response:
    """A file's first rows, as tokens of a base model: what is learned, and where an adapter acts."""
    found = await files.retrieve(file_id, visitor, context)
    models = sorted(context.settings.models)
    chosen = model if model in models else models[0] if models else None

    def rows() -> Shown:
        if found.purpose != "fine-tune":
            return Shown()
        start = stored.piece(visitor.id, lambda: context.transaction(visitor.id), file_id, 0) or b""
        known = files.limits(context.settings)
        return preview(start[:BYTES], found.bytes, known, chosen, acts, context.settings)

    shown = await run_in_threadpool(rows)
    return page(request, "file.html", file=found, shown=shown, models=models, model=chosen, acts=acts)


@router.get("/account")
def account(request: Request, visitor: Visitor, context: Ctx) -> Response:
    """The key of this session, and what the tenant has used."""
    with context.transaction(visitor.id) as opened:
        recent = recent_tokens(opened, {visitor.id}).get(visitor.id, 0)
        day = today(opened, visitor.id)
    with context.sessions.begin() as opened:
        key = keys.described(opened, request.cookies.get(session.COOKIE, ""))
    minutes = int(RECENT.total_seconds() // 60)
    return page(request, "account.html", visitor=visitor, recent=recent, minutes=minutes, today=day, key=key)
