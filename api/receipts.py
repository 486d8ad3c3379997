"""/v1/onward/receipts: whether a receipt is this installation's, and its public keys. Knows no replay."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from api import body, errors
from api.auth import Tenant
from api.context import Ctx
from db.contract.receipts import form, signing
from db.contract.receipts.refused import Refused
from db.tenant import receipts

router = APIRouter(prefix="/v1/onward", tags=["receipts"])


class ReceiptKey(BaseModel):
    """An Ed25519 key, in hexadecimal digits, whose signatures on receipts are this installation's."""

    id: str
    object: Literal["receipt_key"] = "receipt_key"
    algorithm: Literal["ed25519"] = "ed25519"
    public: str


class ReceiptKeys(BaseModel):
    object: Literal["list"] = "list"
    data: list[ReceiptKey]


class Verification(BaseModel):
    """`signature` is `valid`, `unsigned`, or why it is none of ours. `recorded`: a job of the tenant published an
    adapter of this name, step and hash. `stored`: these are the bytes of the receipt kept with it; null where none is.
    `valid`: it is recorded, its signature is not wrong, and signature or kept bytes vouch for the rest of it."""

    object: Literal["receipt.verification"] = "receipt.verification"
    valid: bool
    reason: str | None
    job: str
    adapter: str
    sha256: str
    signature: Literal["valid", "unsigned", "unknown_key", "signature"]
    key: str | None
    recorded: bool
    stored: bool | None


@router.get("/receipt_keys")
def list_keys(_: Tenant, context: Ctx) -> ReceiptKeys:
    """The newest and those before it that are still trusted, in the operator's order. None: receipts are not signed."""
    keys = signing.public_keys(context.settings.receipt_signers)
    return ReceiptKeys(data=[ReceiptKey(id=signing.key_id(public), public=public) for public in keys])


async def sent(request: Request, _: Tenant, context: Ctx) -> bytes:
    return await body.whole(request, context.settings)


@router.post(
    "/receipts/verify",
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def verify(raw: Annotated[bytes, Depends(sent)], tenant: Tenant, context: Ctx) -> Verification:
    """Compares receipt.json, as it is, with what was recorded: nothing is replayed and nothing is changed."""
    return await run_in_threadpool(lambda: verified(raw, tenant.id, context))


def verified(raw: bytes, tenant: str, context: Ctx) -> Verification:
    try:
        receipt = form.read(raw)
    except Refused as error:
        raise errors.invalid(f"The receipt is refused: {error.message}.", None, f"receipt_{error.code}") from None
    signature, key = _signature(receipt, context.settings.receipt_signers)
    with context.transaction(tenant) as session:
        kept = receipts.kept(tenant, session, receipt.told[0].job)
    about = receipt.adapter
    recorded = kept is not None and (kept.name, kept.step, kept.sha256) == (about.name, about.step, about.sha256)
    stored = kept.holds(raw) if kept is not None else None
    reason = _reason(signature, recorded, stored)
    return Verification(
        valid=reason is None, reason=reason, job=receipt.told[0].job, adapter=about.name, sha256=about.sha256,
        signature=signature, key=key, recorded=recorded, stored=stored,
    )  # fmt: skip


def _signature(
    receipt: form.Receipt, trusted: str
) -> tuple[Literal["valid", "unsigned", "unknown_key", "signature"], str | None]:
    try:
        return "valid", signing.check(receipt, signing.public_keys(trusted))
    except Refused as error:
        match error.code:
            case "unsigned" | "unknown_key" | "signature":
                return error.code, None
        raise


def _reason(signature: str, recorded: bool, stored: bool | None) -> str | None:
    """Why it is not this installation's; None where it is."""
    if signature in ("unknown_key", "signature"):
        return "Its signature is not one of this installation's."
    if not recorded:
        return "No job of yours published an adapter of this name, step and hash."
    if stored is False:
        return "It is not the receipt that was kept with the adapter."
    if signature == "unsigned" and stored is None:
        return "It is not signed, and no receipt was kept that it could be compared with."
    return None
