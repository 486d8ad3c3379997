"""/v1/uploads: a file in parts, for clients that send large ones so. Knows parts, and `api/files.py` what a file is."""

import hashlib
from contextlib import AsyncExitStack
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.datastructures import UploadFile

from api import body, errors, files, missing, validation
from api.auth import Tenant
from api.context import Context, Ctx
from api.file_objects import LONGEST, SHORTEST, FileObject
from api.file_objects import view as view_file
from api.pagination import Entry
from db import audit
from db import files as stored
from db.contract.rows.files import check
from db.tables import File, Upload
from db.tenant import storage, uploads
from db.tenant.uploads import Part

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])
MOST_PARTS = 1000
PART_BYTES = 64 << 20


class Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ExpiresAfter(Sent):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=SHORTEST, le=LONGEST)]


class UploadCreate(Sent):
    """The body of POST /v1/uploads. `mime_type` says nothing that the rows do not."""

    filename: Annotated[str, Field(min_length=1, max_length=1000)]
    purpose: Literal["fine-tune"]
    bytes: Annotated[int, Field(ge=1)]
    mime_type: Annotated[str, Field(max_length=200)]
    expires_after: ExpiresAfter | None = None


class UploadComplete(Sent):
    """The body of POST /v1/uploads/{id}/complete: the parts in their order, and the MD5 (hex) of the whole file."""

    part_ids: Annotated[list[str], Field(min_length=1, max_length=MOST_PARTS)]
    md5: Annotated[str, Field(max_length=64)] | None = None


class UploadObject(Entry):
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: FileObject | None = None


class PartObject(Entry):
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


async def sent(request: Request, _tenant: Tenant, context: Ctx) -> bytes:
    """The body, read once the key is known to be good."""
    return await body.whole(request, context.settings)


Raw = Annotated[bytes, Depends(sent)]


def view(row: Upload, file: File | None = None) -> UploadObject:
    return UploadObject(
        id=row.id, bytes=row.bytes, created_at=files.epoch(row.created_at), expires_at=files.epoch(row.expires_at),
        filename=row.filename, purpose=row.purpose, status=row.status, file=view_file(file) if file else None,
    )  # fmt: skip


def schema(model: type[BaseModel]) -> dict[str, Any]:
    said = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    return {"requestBody": {"required": True, "content": {"application/json": said}}}


PART: dict[str, Any] = {"type": "object", "required": ["data"]}
PART |= {"properties": {"data": {"type": "string", "format": "binary"}}}


@router.post("", openapi_extra=schema(UploadCreate))
def create(raw: Raw, tenant: Tenant, context: Ctx) -> UploadObject:
    """Begins a file that comes in parts, to be completed within the hour."""
    wanted = validation.validated(UploadCreate, raw)
    if wanted.bytes > context.settings.max_file_bytes:
        raise errors.too_large("The file", context.settings.max_file_bytes)
    with context.transaction(tenant.id) as session:
        storage.check(tenant.id, session, wanted.bytes, context.settings.max_tenant_bytes)
        after = wanted.expires_after.seconds if wanted.expires_after else None
        made = uploads.create(
            tenant.id, session, filename=files.printable(wanted.filename), purpose=wanted.purpose,
            size=wanted.bytes, expires_after=after,
        )  # fmt: skip
        audit.write(session, tenant.id, "upload.create", made.id, {"bytes": made.bytes})
        return view(made)


@router.post(
    "/{upload_id}/parts",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": PART}}}},
)
async def add(upload_id: str, request: Request, tenant: Tenant, context: Ctx) -> PartObject:
    """Stores a part of at most 64 MiB. Parts may come in any order and at one time."""
    declared = body.declared(request)
    await run_in_threadpool(files.begin, tenant.id, context, declared)
    form = await body.form(request, context.settings)
    async with AsyncExitStack() as last:
        last.push_async_callback(form.close)
        data = form.get("data")
        if not isinstance(data, UploadFile):
            raise errors.invalid("Missing required parameter: 'data'.", "data", "missing_required_parameter")
        return await run_in_threadpool(_store, tenant.id, context, upload_id, data.file, declared)


def _store(tenant: str, context: Context, upload_id: str, data: IO[bytes], counted: int) -> PartObject:
    size = data.seek(0, 2)
    if not 0 < size <= PART_BYTES:
        raise errors.too_large("The part", PART_BYTES) if size else errors.invalid("The part is empty.", "data")
    context.rates.take("bytes", tenant, context.settings.upload_bytes_a_minute, max(size - counted, 0))
    data.seek(0)
    with context.transaction(tenant) as session:
        upload = pending(errors.found(uploads.get(tenant, session, upload_id, lock=True), missing.upload(upload_id)))
        there = uploads.parts(tenant, session, upload_id)
        if sum(part.bytes for part in there.values()) + size > upload.bytes:
            raise errors.invalid(f"The parts would hold more than the {upload.bytes} bytes of the upload.", "data")
        if len(there) >= MOST_PARTS:
            raise errors.invalid(f"An upload has at most {MOST_PARTS} parts.", "data")
        part = uploads.add(tenant, session, upload_id, files.pieces(data))
        storage.confirm(tenant, session, context.settings.max_tenant_bytes)
        audit.write(session, tenant, "upload.parts", part.id, {"upload": upload_id, "bytes": size})
        return PartObject(id=part.id, created_at=files.epoch(part.created_at), upload_id=upload_id)


@router.post("/{upload_id}/complete", openapi_extra=schema(UploadComplete))
def complete(upload_id: str, raw: Raw, tenant: Tenant, context: Ctx) -> UploadObject:
    """The parts, in the order of `part_ids`, become a file, whose rows are checked like those of any. Where
    something is not right the upload stays as it is."""
    wanted = validation.validated(UploadComplete, raw)
    with context.transaction(tenant.id) as session:
        found = uploads.get(tenant.id, session, upload_id, lock=True)
        upload = pending(errors.found(found, missing.upload(upload_id)))
        order = _ordered(uploads.parts(tenant.id, session, upload_id), wanted.part_ids)
        whole(session, upload, order, wanted.md5)
        report = check(uploads.joined(session, order), files.limits(context.settings))
        file = stored.create(
            tenant.id, session, filename=upload.filename, purpose=upload.purpose, format=report.format,
            rows=report.rows, chunks=uploads.joined(session, order), repeated_rows=report.repeated,
        )  # fmt: skip
        files.expire(session, file, upload.expires_after)
        uploads.complete(tenant.id, session, upload, file)
        about = {"bytes": file.bytes, "rows": file.rows, "format": file.format, "file": file.id}
        audit.write(session, tenant.id, "upload.complete", upload_id, about)
        return view(upload, file)


def whole(session: Session, upload: Upload, order: list[Part], md5: str | None) -> None:
    """Raises ApiError 400 where the parts are not the file that was announced."""
    size = sum(part.bytes for part in order)
    if size != upload.bytes:
        raise errors.invalid(f"The parts hold {size} bytes, and the upload is of {upload.bytes}.", "part_ids")
    if md5 is None:
        return
    digest = hashlib.md5(usedforsecurity=False)
    for piece in uploads.joined(session, order):
        digest.update(piece)
    if md5.lower() != digest.hexdigest():
        raise errors.invalid(f"The MD5 of the parts is {digest.hexdigest()}, not what was sent.", "md5")


@router.post("/{upload_id}/cancel")
def cancel(upload_id: str, tenant: Tenant, context: Ctx) -> UploadObject:
    """Its parts go, and no more are taken."""
    with context.transaction(tenant.id) as session:
        found = errors.found(uploads.get(tenant.id, session, upload_id, lock=True), missing.upload(upload_id))
        uploads.end(tenant.id, session, pending(found).id, "cancelled")
        audit.write(session, tenant.id, "upload.cancel", upload_id)
        return view(found)


def _ordered(there: dict[str, Part], wanted: list[str]) -> list[Part]:
    """The parts named, each once. Raises ApiError 400 for a part that is not the upload's."""
    for part in wanted:
        if part not in there or wanted.count(part) > 1:
            why = "is named twice" if part in there else "is no part of this upload"
            raise errors.invalid(f"{part[:100]} {why}.", "part_ids", "invalid_value")
    return [there[part] for part in wanted]


def pending(upload: Upload) -> Upload:
    """Raises ApiError 400 where the upload has ended."""
    if upload.status != "pending":
        raise errors.invalid(f"The upload is {upload.status}.", "upload_id", "invalid_upload_status")
    return upload
