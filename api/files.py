"""/v1/files: JSONL checked row by row as it is stored, and the result files of jobs. Knows no model."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.datastructures import UploadFile

from api import body, errors, missing
from api.auth import Tenant
from api.context import Context, Ctx
from api.pagination import Entry, Page, page
from api.settings import Settings
from db import audit, files
from db.contract.rows.files import check
from db.contract.rows.jsonl import Limits
from db.tables import File
from db.tenant import deletion, storage

router = APIRouter(prefix="/v1/files", tags=["files"])
CHUNK = 1 << 20
SHORTEST, LONGEST = 3600, 2_592_000  # seconds that a file may expire after: an hour to thirty days, as OpenAI's
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
BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
CONTENT: dict[str, Any] = {"application/jsonl": BYTES, "application/x-tar": BYTES}


class FileObject(Entry):
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    expires_at: int | None = None
    onward: dict[str, Any]


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True
    onward: dict[str, Any] | None = None  # of a result file: the adapter that went with it


def epoch(moment: datetime) -> int:
    return int(moment.timestamp())


def view(file: File) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=epoch(file.created_at),
        filename=file.filename,
        purpose=file.purpose,
        expires_at=epoch(file.expires_at) if file.expires_at else None,
        onward={"format": file.format, "rows": file.rows, "sha256": file.sha256},
    )


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


def expiry(anchor: object, seconds: object) -> int | None:
    """Seconds after its creation that a file expires; None: never. Raises ApiError 400."""
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise errors.invalid(
            "Invalid value for 'expires_after.anchor': it must be 'created_at'.", "expires_after.anchor"
        )
    digits = str(seconds)
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10 and SHORTEST <= int(digits) <= LONGEST):
        message = f"Invalid value for 'expires_after.seconds': it must be a whole number from {SHORTEST} to {LONGEST}."
        raise errors.invalid(message, "expires_after.seconds", "invalid_value")
    return int(digits)


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
    with context.transaction(tenant) as session:
        stored = files.create(
            tenant,
            session,
            filename=printable(filename),
            purpose="fine-tune",
            format=report.format,
            rows=report.rows,
            chunks=pieces(sent),
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
def retrieve(file_id: str, tenant: Tenant, context: Ctx) -> FileObject:
    with context.transaction(tenant.id) as session:
        return view(errors.found(files.get(tenant.id, session, file_id), missing.file(file_id)))


@router.get("/{file_id}/content", response_class=StreamingResponse, responses={200: {"content": CONTENT}})
def content(file_id: str, tenant: Tenant, context: Ctx) -> StreamingResponse:
    """The bytes as they were uploaded; of a result file, a tar of the adapter's PEFT directory."""
    with context.transaction(tenant.id) as session:
        file = errors.found(files.get(tenant.id, session, file_id), missing.file(file_id))
    kind = "application/x-tar" if file.purpose == "fine-tune-results" else "application/jsonl"
    headers = {"content-length": str(file.bytes), "x-content-type-options": "nosniff"}
    return StreamingResponse(stream(context, tenant.id, file_id), media_type=kind, headers=headers)


def stream(context: Context, tenant: str, file_id: str) -> Iterator[bytes]:
    """Chunks of a file, each read in a transaction of its own: the client may read slowly, and meanwhile no connection
    is held."""
    number = 0
    while True:
        with context.transaction(tenant) as session:
            piece = files.chunk(tenant, session, file_id, number)
        if piece is None:
            return
        yield piece
        number += 1


@router.delete("/{file_id}")
def delete(file_id: str, tenant: Tenant, context: Ctx) -> FileDeleted:
    """Hidden at once; a job that has begun still reads it. A result file goes with its adapter: its name, its bytes and
    its folder on the workers' disks."""
    with context.transaction(tenant.id) as session:
        there, adapter = deletion.file(tenant.id, session, file_id)
        if not there:
            raise missing.file(file_id)
        return FileDeleted(id=file_id, onward=adapter and {"adapter": adapter.name, "job": adapter.job_id})
