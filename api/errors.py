"""Every way a request can fail, in OpenAI's error shape: by what is raised, or by a Refusal of the contract.

Knows errors, no resource.
"""

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

from api import answers
from api.answers import FINAL as FINAL
from api.answers import ApiError as ApiError
from api.answers import invalid as invalid
from api.answers import sentence as sentence
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
MOST_SAID: Final = 1000  # characters


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


# The answer to each kind of exception that a request may end with, by the most exact class. Starlette is told of these.
ANSWERS: Final[dict[type[Exception], Callable[[Any], ApiError]]] = {
    ApiError: lambda error: error,
    BadRow: lambda error: bad_row(error, "file"),
    UnknownCursor: lambda error: unknown_cursor(error.after),
    MissingFile: lambda error: ApiError(404, f"No such File object: {error.file_id}", code="file_not_found"),
    QuotaExceeded: answers.no_quota,
    StorageExceeded: answers.no_storage,
    IdempotencyConflict: answers.used_key,
    NoParent: answers.no_parent,
    OtherLayout: lambda error: invalid(f"The adapter of {error} is laid out otherwise.", "model", "other_layout"),
    TooManyAsked: answers.too_many_asked,
    WrongState: answers.wrong_state,
    Crowded: answers.crowded,
    Ending: answers.ending,
    Exceeded: answers.exceeded,
    RequestValidationError: answers.wrong_parameter,
    MultiPartException: lambda error: invalid(f"The multipart body could not be read: {error.message}", "file"),
    ClientDisconnect: lambda _: invalid("The request ended before its body did."),
    HTTPException: answers.http,
    # A string PostgreSQL cannot hold (NUL) or a number out of its range, from a path or a query.
    DataError: lambda _: invalid("A value in the request cannot be stored."),
    OperationalError: answers.away,
    InterfaceError: answers.away,
    NoConnection: answers.away,
    StoreAway: answers.store_away,
    ObjectLost: answers.lost,
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


def told(request: Request, error: Exception, known: ApiError) -> None:
    """The log's line. What we answer on purpose (no worker, a store out of reach) is said with its cause: where it was
    raised teaches nobody anything, and a minute without a worker would fill the log with it."""
    about = {"method": request.method, "status": known.status}
    if isinstance(error, ApiError):
        cause = error.__cause__ and f"{type(error.__cause__).__name__}: {error.__cause__}"[:MOST_SAID]
        log.warning("request_refused", **about, code=known.code, said=known.message[:MOST_SAID], cause=cause)
        return
    # Rendered here: structlog's console would print the locals of every frame, and a request's rows are among them.
    log.error("request_failed", **about, exception="".join(traceback.format_exception(error)))


def answer(request: Request, error: Exception) -> JSONResponse:
    missed = isinstance(error, HTTPException) and error.status_code == 404  # of the router: ours are ApiErrors
    known = unknown_url(request) if missed else translate(error)
    if known.status >= 500:
        told(request, error, known)
    said, param = known.message[:MOST_SAID], known.param and known.param[:MOST_SAID]  # both may repeat what was sent
    body = {"message": said, "type": known.kind, "param": param, "code": known.code}
    return JSONResponse({"error": body}, known.status, known.headers)


def install(app: FastAPI) -> None:
    """Starlette looks handlers up by class: HTTPException and RequestValidationError have defaults to replace, and
    `Exception` is answered by the outermost middleware, which logs what it answers."""
    for kind in ANSWERS:
        app.add_exception_handler(kind, answer)
