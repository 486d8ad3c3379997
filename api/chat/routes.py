"""/v1/chat/completions and /v1/completions: a base model, an adapter, a step of a job or a job that trains, by name."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from api import body
from api.auth import Tenant
from api.chat.exchange import Exchange
from api.chat.request import ChatCreate, CompletionCreate, sendable
from api.context import Ctx
from api.validation import validated

router = APIRouter(prefix="/v1", tags=["chat"])


def described(name: str) -> dict[str, Any]:
    """Of a route that reads its body itself."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    answer = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {"type": "object"}}}
    said = {"200": {"description": "The answer, or its stream where `stream` is true.", "content": answer}}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": said,
    }


async def sent(request: Request, _tenant: Tenant, context: Ctx) -> bytes:
    """The body, read once the key is known to be good."""
    return await body.whole(request, context.settings)


Sent = Annotated[bytes, Depends(sent)]


@router.post("/chat/completions", openapi_extra=described("ChatCreate"), response_model=None)
async def chat(request: Request, raw: Sent, tenant: Tenant, context: Ctx) -> Response:
    """OpenAI's. `model` is a base model's name, an adapter's (`ft:…`), a step's (`ft:…:ckpt-step-N`), or `ft:…:live` of
    a job that trains; the answer's `model` is the name that asks the same again."""
    return await answered(request, validated(ChatCreate, raw), tenant, context)


@router.post("/completions", openapi_extra=described("CompletionCreate"), response_model=None)
async def completions(request: Request, raw: Sent, tenant: Tenant, context: Ctx) -> Response:
    """OpenAI's, for texts that no chat template is to touch."""
    return await answered(request, validated(CompletionCreate, raw), tenant, context)


async def answered(request: Request, asked: ChatCreate | CompletionCreate, tenant: Tenant, context: Ctx) -> Response:
    """What a tenant's key asked by one of the routes. Raises ApiError."""
    sendable(asked)
    state = request.app.state
    return await Exchange(request, tenant, context, state.lines, state.ledger, state.chats, asked).answer()
