"""/v1/onward/profiles: files made once for a base, which jobs name by their hash. The operator adds them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from api import errors, missing
from api.auth import Tenant
from api.context import Context, Ctx
from db import profiles
from db.contract.tokens.base_model import load
from db.tables import Profile

router = APIRouter(prefix="/v1/onward/profiles", tags=["profiles"])


class ProfileObject(BaseModel):
    """`id` is the SHA-256 of the file, which a job's `onward.profile` names; `kind` says which methods read it. It fits
    adapters of this `rank` on modules of these names (`targets`) of the base. `about` is what its maker said."""

    id: str
    object: Literal["profile"] = "profile"
    created: int
    kind: str
    model: str
    rank: int
    targets: list[str]
    bytes: int
    about: dict[str, Any]


class Profiles(BaseModel):
    object: Literal["list"] = "list"
    data: list[ProfileObject]


@router.get("")
def list_profiles(
    tenant: Tenant, context: Ctx, model: Annotated[str | None, Query(description="Those of this base model.")] = None
) -> Profiles:
    """In the order in which they were added; every tenant sees all."""
    base = None
    if model is not None:
        if model not in context.settings.models:
            raise missing.model(model)
        base = load(model, context.settings).fingerprint
    with context.transaction(tenant.id) as session:
        return Profiles(data=[view(row) for row in profiles.every(session, base)])


@router.get("/{sha256}")
def retrieve(sha256: str, tenant: Tenant, context: Ctx) -> ProfileObject:
    with context.transaction(tenant.id) as session:
        return view(errors.found(profiles.get(session, hexadecimal(sha256)), missing.profile(sha256)))


@router.get("/{sha256}/content", response_class=Response)
def content(sha256: str, tenant: Tenant, context: Ctx) -> Response:
    """The safetensors file: what a receipt of an adapter that follows from it is rebuilt with."""
    found = errors.found(_read(sha256, tenant.id, context), missing.profile(sha256))
    return Response(found, media_type="application/octet-stream")


def _read(sha256: str, tenant: str, context: Context) -> bytes | None:
    with context.transaction(tenant) as session:
        return profiles.content(session, hexadecimal(sha256))


def hexadecimal(sha256: str) -> str:
    """The hash. Raises ApiError 404 for what is none."""
    if profiles.HASH.fullmatch(sha256) is None:
        raise missing.profile(sha256)
    return sha256


def view(row: Profile) -> ProfileObject:
    about = dict(row.about)
    known: dict[str, Any] = {name: about.pop(name) for name in ("model", "rank", "targets")}
    return ProfileObject(
        id=row.sha256, created=int(row.created_at.timestamp()), kind=row.kind, bytes=row.bytes, about=about, **known
    )
