"""Every way a request can fail, in OpenAI's error shape: by what is raised, or by a Refusal of the contract.

Knows errors, no resource.
"""

import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.flights import Crowded, Ending
from api.rates import Exceeded
from db.contract.refusal import Refusal
from db.contract.rows.jsonl import BadRow
from db.ids import UnknownCursor
from db.store.seam import ObjectLost, StoreAway
from db.tenant.jobs import IdempotencyConflict, MissingFile
from db.tenant.parents import NoParent, OtherLayout
from db.tenant.quotas import QuotaExceeded
from db.tenant.restorations import TooManyAsked
from db.tenant.storage import StorageExceeded
from db.transitions import WrongState

log = structlog.get_logger(__name__)
T = TypeVar("T")
INVALID = "invalid_request_error"
# The openai client repeats 409, 429 and 5xx unless told not to: repeating cannot help in these cases.
FINAL = {"x-should-retry": "false"}
MOST_SAID: Final = 1000  # characters


class ApiError(Exception):
    """An answer other than 2xx. `param` is the path of the request's field at fault, as `onward.rank`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.headers = headers or {}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def unknown_cursor(after: str) -> ApiError:
    """For what no page of the list has ended with."""
    return invalid(f"Invalid value for 'after': there is no {after[:100]} in this list.", "after", "invalid_value")


def too_large(what: str, limit: int) -> ApiError:
    return ApiError(413, f"{what} exceeds the limit of {limit} bytes.", code="request_too_large")


def encoded() -> ApiError:
    """Nothing that was sent is decompressed here: what comes out has no bound that the sender pays for."""
    return ApiError(415, "Send the body as it is, without a Content-Encoding.", code="unsupported_content_encoding")


def found(value: T | None, otherwise: ApiError) -> T:
    if value is None:
        raise otherwise
    return value


def accepted(value: T | Refusal) -> T:
    """What the contract decided; the one place where a refusal of its becomes an answer."""
    if isinstance(value, Refusal):
        raise invalid(value.message, value.field, value.code)
    return value


def sentence(error: Any) -> str:
    """What pydantic says of an error, in our words where a rule of ours found it."""
    return str(error["msg"]).removeprefix("Value error, ")


def bad_row(row: BadRow, param: str) -> ApiError:
    """The request's field `param` names the file with this row."""
    return invalid(f"Line {row.line}: {row.reason}", param, "invalid_file_format")


@contextmanager
def blamed(param: str) -> Iterator[None]:
    """A bad row met in here is the fault of the request's field `param`."""
    try:
        yield
    except BadRow as error:
        raise bad_row(error, param) from error


def reachable(probe: Callable[[], object]) -> bool:
    """Whether `probe` returns: a part that is away is an answer of the readiness page, not its failure."""
    try:
        probe()
    except Exception as error:
        log.warning("part_away", error=repr(error))
        return False
    return True


def _no_quota(error: QuotaExceeded) -> ApiError:
    message = f"You exceeded your quota of {error}."
    return ApiError(429, message, kind="insufficient_quota", code="insufficient_quota", headers=FINAL)


def _no_storage(error: StorageExceeded) -> ApiError:
    message = f"Your files and results hold {error.used} of {error.limit} bytes, and {error.asked} more do not fit."
    return ApiError(413, message, kind="insufficient_quota", code="storage_quota_exceeded", headers=FINAL)


def _used_key(_: IdempotencyConflict) -> ApiError:
    message = "This Idempotency-Key was used before with a different request body."
    return ApiError(409, message, code="idempotency_key_in_use", headers=FINAL)


def _wrong_state(error: WrongState) -> ApiError:
    message = f"The job is {error.state}: it cannot be {error.wanted}."
    if error.state == "validating_files":
        message = (
            f"The job's files are being validated: until it is queued it can be cancelled, and not {error.wanted}."
        )
    return ApiError(409, message, code="wrong_state", headers=FINAL)


def _wrong_parameter(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    param = str(first["loc"][-1])
    return invalid(f"Invalid value for '{param}': {sentence(first)}", param, "invalid_value")


def _http(error: HTTPException) -> ApiError:
    headers = dict(error.headers or {})
    match error.status_code:
        case 404:
            return ApiError(404, "Unknown request URL.", code="unknown_url")
        case 405:
            return ApiError(405, "Not allowed: method.", code="method_not_allowed", headers=headers)
    return ApiError(error.status_code, error.detail, headers=headers)


def _crowded(error: Crowded) -> ApiError:
    message = f"Too many requests of yours wait for their tokens to be counted (at most {error.most}): try again."
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", headers={"retry-after": "5"})


def _exceeded(error: Exceeded) -> ApiError:
    taken = error.taken
    what = {"bytes": "bytes uploaded", "keys": "wrong API keys from your address"}.get(taken.kind, taken.kind)
    seconds = math.ceil(taken.reset)
    message = f"Rate limit reached: {taken.limit} {what} a minute. Try again in {seconds} s."
    headers = {"retry-after": str(seconds)} | (taken.headers if taken.kind == "requests" else {})
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", headers=headers)


def _no_parent(error: NoParent) -> ApiError:
    return ApiError(404, f"{error.job_id} has no model to go on from.", param="model", code="model_not_found")


def _too_many_asked(error: TooManyAsked) -> ApiError:
    message = f"{error.most} steps of yours are being rebuilt, which is the most at one time: try again."
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", headers={"retry-after": "5"})


def _ending(_: Ending) -> ApiError:
    message = "This process ends. Nothing was changed; try again."
    return ApiError(503, message, kind="server_error", code="unavailable", headers={"retry-after": "1"})


def _away(_: Exception) -> ApiError:
    message = "The database is not available at the moment. Nothing was changed; try again."
    return ApiError(503, message, kind="server_error", code="unavailable", headers={"retry-after": "1"})


def _store_away(error: StoreAway) -> ApiError:
    message = "The store of files is not available at the moment. Nothing was changed; try again."
    seconds = str(max(1, math.ceil(error.seconds)))
    return ApiError(503, message, kind="server_error", code="unavailable", headers={"retry-after": seconds})


def _lost(_: ObjectLost) -> ApiError:
    message = "The bytes of this file are lost: upload it again."
    return ApiError(500, message, kind="server_error", code="file_lost", headers=FINAL)


# The answer to each kind of exception that a request may end with, by the most exact class. Starlette is told of these.
ANSWERS: Final[dict[type[Exception], Callable[[Any], ApiError]]] = {
    ApiError: lambda error: error,
    BadRow: lambda error: bad_row(error, "file"),
    UnknownCursor: lambda error: unknown_cursor(error.after),
    MissingFile: lambda error: ApiError(404, f"No such File object: {error.file_id}", code="file_not_found"),
    QuotaExceeded: _no_quota,
    StorageExceeded: _no_storage,
    IdempotencyConflict: _used_key,
    NoParent: _no_parent,
    OtherLayout: lambda error: invalid(f"The adapter of {error} is laid out otherwise.", "model", "other_layout"),
    TooManyAsked: _too_many_asked,
    WrongState: _wrong_state,
    Crowded: _crowded,
    Ending: _ending,
    Exceeded: _exceeded,
    RequestValidationError: _wrong_parameter,
    MultiPartException: lambda error: invalid(f"The multipart body could not be read: {error.message}", "file"),
    ClientDisconnect: lambda _: invalid("The request ended before its body did."),
    HTTPException: _http,
    # A string PostgreSQL cannot hold (NUL) or a number out of its range, from a path or a query.
    DataError: lambda _: invalid("A value in the request cannot be stored."),
    OperationalError: _away,
    InterfaceError: _away,
    NoConnection: _away,
    StoreAway: _store_away,
    ObjectLost: _lost,
    # Anything not foreseen says nothing of us.
    Exception: lambda _: ApiError(500, "The server had an error while processing your request.", kind="server_error"),
}


def translate(error: Exception) -> ApiError:
    """The answer to any exception a request ended with."""
    return ANSWERS[next(kind for kind in type(error).__mro__ if kind in ANSWERS)](error)


def unknown_url(request: Request) -> ApiError:
    """Where it is one of ours but for a /v1 too few or too many, that is said: the usual mistake in a base_url."""
    path = request.url.path

    def served(other: str) -> bool:
        scope = {**request.scope, "path": request.scope.get("root_path", "") + other}
        return any(route.matches(scope)[0] is not Match.NONE for route in request.app.router.routes)

    said = f"Unknown request URL: {request.method} {path}."
    base_url = f"{str(request.base_url).rstrip('/')}/v1"
    if not path.startswith("/v1/") and served(f"/v1{path}"):
        said += f" It is under /v1: set the client's base_url to {base_url}"
    elif path.startswith("/v1/v1/") and served(path.removeprefix("/v1")):
        said += f" It has /v1 twice: set the client's base_url to {base_url}"
    return ApiError(404, said, code="unknown_url")


def answer(request: Request, error: Exception) -> JSONResponse:
    missed = isinstance(error, HTTPException) and error.status_code == 404  # of the router: ours are ApiErrors
    known = unknown_url(request) if missed else translate(error)
    if known.status >= 500:
        # Rendered here: structlog's console would print the locals of every frame, and a request's rows are among them.
        said = "".join(traceback.format_exception(error))
        log.error("request_failed", method=request.method, status=known.status, exception=said)
    said, param = known.message[:MOST_SAID], known.param and known.param[:MOST_SAID]  # both may repeat what was sent
    body = {"message": said, "type": known.kind, "param": param, "code": known.code}
    return JSONResponse({"error": body}, known.status, known.headers)


def install(app: FastAPI) -> None:
    """Starlette looks handlers up by class: HTTPException and RequestValidationError have defaults to replace, and
    `Exception` is answered by the outermost middleware, which logs what it answers."""
    for kind in ANSWERS:
        app.add_exception_handler(kind, answer)
