"""/v1/files: JSONL checked row by row as it is stored, and the result files of jobs. Knows no model."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session
from starlette.datastructures import UploadFile

from api import body, content, errors, missing, restored
from api.auth import Tenant
from api.context import Context, Ctx
from api.file_objects import LONGEST, SHORTEST, FileDeleted, FileObject, expiry, view, view_of_step
from api.file_objects import epoch as epoch
from api.pagination import Page, page
from api.settings import Settings
from db import audit, deposits, files
from db.contract.rows.files import check
from db.contract.rows.jsonl import Limits
from db.ids import of_step_file
from db.tables import File, Restoration
from db.tenant import deletion, storage

router = APIRouter(prefix="/v1/files", tags=["files"])
CHUNK = 1 << 20
EXPIRY = ("expires_after[anchor]", "expires_after[seconds]")
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "JSONL, one format a file"},
                        "purpose": {"type": "string", "enum": ["fine-tune"]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": SHORTEST, "maximum": LONGEST},
                    },
                }
            }
        },
    }
}


@router.post("", openapi_extra=UPLOAD)
async def upload(request: Request, tenant: Tenant, context: Ctx) -> FileObject:
    """Stores a training or validation file: chat (`messages`), `prompt`/`completion`, or `prompt`/`choices`/`label`.
    A row that is not right answers 400 with its line and the reason, and nothing is stored."""
    declared = body.declared(request)
    await run_in_threadpool(begin, tenant.id, context, declared)
    form = await body.form(request, context.settings)
    async with AsyncExitStack() as last:
        last.push_async_callback(form.close)
        sent, purpose = form.get("file"), form.get("purpose")
        unknown = sorted(set(form) - {"file", "purpose", *EXPIRY})
        if unknown:
            raise errors.invalid(f"Unrecognized request argument supplied: {unknown[0]}", unknown[0])
        if not isinstance(sent, UploadFile):
            raise errors.invalid("Missing required parameter: 'file'.", "file", "missing_required_parameter")
        if purpose != "fine-tune":
            raise errors.invalid("Invalid value for 'purpose': it must be 'fine-tune'.", "purpose", "invalid_value")
        after = expiry(*(form.get(name) for name in EXPIRY))
        return await run_in_threadpool(store, tenant.id, context, sent.file, sent.filename or "", declared, after)


def begin(tenant: str, context: Context, size: int) -> None:
    """Raises Exceeded where the tenant has sent its bytes of this minute before these, and StorageExceeded."""
    context.rates.charge("bytes", tenant, context.settings.upload_bytes_a_minute, size, whole=True)
    room(tenant, context, size)


def room(tenant: str, context: Context, size: int) -> None:
    """Raises StorageExceeded where `size` bytes more are over the tenant's limit."""
    with context.transaction(tenant) as session:
        storage.check(tenant, session, size, context.settings.max_tenant_bytes)


def store(
    tenant: str, context: Context, sent: IO[bytes], filename: str, counted: int, expires_after: int | None
) -> FileObject:
    """Two readings of the spooled upload: rows are checked before the transaction begins. `counted` of its bytes count
    in this minute already."""
    most = context.settings.max_file_bytes
    size = sent.seek(0, 2)
    if size > most:
        raise errors.too_large("The file", most)
    room(tenant, context, size)
    context.rates.take("bytes", tenant, context.settings.upload_bytes_a_minute, max(size - counted, 0))
    sent.seek(0)
    report = check(pieces(sent), limits(context.settings))
    sent.seek(0)
    with (
        deposits.deposited(tenant, context.stores, lambda: context.transaction(tenant), pieces(sent)) as chunks,
        context.transaction(tenant) as session,
    ):
        stored = files.create(
            tenant,
            session,
            filename=printable(filename),
            purpose="fine-tune",
            format=report.format,
            rows=report.rows,
            chunks=chunks,
            repeated_rows=report.repeated,
        )
        expire(session, stored, expires_after)
        storage.confirm(tenant, session, context.settings.max_tenant_bytes)  # others may have come meanwhile
        about = {"bytes": stored.bytes, "rows": stored.rows, "format": stored.format}
        audit.write(session, tenant, "file.create", stored.id, about)
        return view(stored)


def expire(session: Session, stored: File, seconds: int | None) -> None:
    """The file goes so long after it was made."""
    if seconds is not None:
        stored.expires_at = stored.created_at + timedelta(seconds=seconds)
        session.flush()


def limits(settings: Settings) -> Limits:
    return Limits(
        max_line_bytes=settings.max_line_bytes,
        max_file_bytes=settings.max_file_bytes,
        max_rows=settings.max_rows,
        max_choices=settings.max_choices,
    )


def pieces(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(CHUNK):
        yield piece


def printable(filename: str) -> str:
    """The last part of what the client calls its file: a label for people, never a path."""
    name = "".join(c for c in filename.replace("\\", "/").rpartition("/")[2] if c.isprintable())
    return name[:255] or "file.jsonl"


@router.get("")
def list_files(
    tenant: Tenant,
    context: Ctx,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    purpose: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[FileObject]:
    with context.transaction(tenant.id) as session:
        found, more = files.page(tenant.id, session, after=after, limit=limit, purpose=purpose, order=order)
        return page([view(file) for file in found], more)


@router.get("/{file_id}")
async def retrieve(file_id: str, tenant: Tenant, context: Ctx) -> FileObject:
    found = await there(tenant.id, context, file_id)
    return view(found) if isinstance(found, File) else view_of_step(found)


@router.get("/{file_id}/content", response_class=StreamingResponse, responses={200: {"content": content.DESCRIBED}})
async def read(file_id: str, tenant: Tenant, context: Ctx, accept: Annotated[str, Header()] = "*/*") -> Response:
    """The bytes as they were uploaded; of a job's results `step_metrics.csv` in base64, as OpenAI's, and as it is with
    `Accept: text/csv`, the adapter as a tar of its PEFT directory. `file-…-step-N` is that of any step of a job: where
    it is still to be rebuilt this waits a while, and then answers 409 with `Retry-After`."""
    found = await there(tenant.id, context, file_id)
    if isinstance(found, Restoration):
        return content.of_step(context, tenant.id, found)
    return await run_in_threadpool(content.of_file, context, tenant.id, found, accept)


async def there(tenant: str, context: Context, file_id: str) -> File | Restoration:
    """The tenant's file, or the step of a job that its id names. Raises ApiError."""

    def look() -> File:
        with context.transaction(tenant) as session:
            return errors.found(files.get(tenant, session, file_id), missing.file(file_id))

    step = await restored.file(tenant, context, file_id)
    return step if step is not None else await run_in_threadpool(look)


@router.delete("/{file_id}")
def delete(file_id: str, tenant: Tenant, context: Ctx) -> FileDeleted:
    """Hidden at once; a job that has begun still reads it. An adapter's tar goes with its adapter, as the model
    would; metrics and receipt go alone. Of a step of a job what was rebuilt goes, and can be rebuilt again."""
    with context.transaction(tenant.id) as session:
        if (step := of_step_file(file_id)) is not None:
            errors.found(deletion.step(tenant.id, session, *step) or None, missing.file(file_id))
            return FileDeleted(id=file_id)
        there, adapter = deletion.file(tenant.id, session, file_id)
        if not there:
            raise missing.file(file_id)
        return FileDeleted(id=file_id, onward=adapter and {"adapter": adapter.name, "job": adapter.job_id})
