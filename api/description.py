"""The page that describes the API (OpenAPI), with what FastAPI cannot know: bodies that routes read themselves, and the
one shape of every error. Knows statuses, no resource."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.auth import CHATS
from api.chat.request import ChatCreate, CompletionCreate
from api.jobs.request import JobCreate
from api.uploads import UploadComplete, UploadCreate

ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Error",
    "description": "Every answer other than 2xx, in OpenAI's shape. `param` is the path of the field at fault.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
SAID: Final = {
    400: "The request is not right.",
    401: "No key, or not one of this installation's.",
    403: "The key may not do this.",
    404: "Not there, or another tenant's.",
    405: "Not a method of this address.",
    408: "The request was sent too slowly.",
    409: "The job's state, or an Idempotency-Key used before, does not allow it.",
    413: "The body is larger than this server takes.",
    415: "The body is compressed.",
    429: "A quota or a rate is used up.",
    500: "A worker failed with this request.",
    503: "A part this needs is away; nothing was changed.",
    504: "The answer took too long.",
}
OF_TENANTS: Final = (400, 401, 403, 404, 405, 408, 429, 503)
OF_BODIES: Final = (409, 413, 415)


def described(app: FastAPI) -> dict[str, Any]:
    """The app's OpenAPI document, made once."""
    if app.openapi_schema is None:
        page = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = page["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's, which no route answers with
            schemas.pop(unused, None)
        for model in (JobCreate, UploadCreate, UploadComplete, ChatCreate, CompletionCreate):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
        schemas["Error"] = ERROR
        for path, methods in page["paths"].items():
            for method, operation in methods.items():
                operation["responses"].pop("422", None)
                for status in _failures(path, method):
                    operation["responses"].setdefault(str(status), _failure(status))
        app.openapi_schema = page
    return app.openapi_schema


def _failures(path: str, method: str) -> tuple[int, ...]:
    if not path.startswith("/v1/"):
        return (405,)
    ours = (500, 504) if path in CHATS else ()
    return OF_TENANTS + (OF_BODIES if method == "post" else ()) + ours


def _failure(status: int) -> dict[str, Any]:
    error = {"schema": {"$ref": "#/components/schemas/Error"}}
    return {"description": SAID[status], "content": {"application/json": error}}
