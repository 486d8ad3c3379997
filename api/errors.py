"""Every way a request can fail, in OpenAI's error shape. The one place of the API with `try`; knows no resource."""

import difflib
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from db.contract.rows.files import BadRow
from db.contract.tokens.base_model import UnknownTarget
from db.contract.tokens.invocation import Unresolved
from db.tenant.jobs import IdempotencyConflict, MissingFile, QuotaExceeded, WrongState

log = structlog.get_logger(__name__)
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
E = TypeVar("E", bound=Exception)
INVALID = "invalid_request_error"
# The openai client repeats 409, 429 and 5xx unless told not to: repeating cannot help in these cases.
FINAL = {"x-should-retry": "false"}


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


def too_large(what: str, limit: int) -> ApiError:
    return ApiError(413, f"{what} exceeds the limit of {limit} bytes.", code="request_too_large")


def no_file(file_id: str, param: str | None = "id") -> ApiError:
    """The same answer for a file that never was, was deleted, or is another tenant's."""
    return ApiError(404, f"No such File object: {file_id}", param=param, code="file_not_found")


def no_job(job_id: str) -> ApiError:
    return ApiError(404, f"Could not find fine tune: {job_id}", param="fine_tune_id", code="fine_tune_not_found")


def no_model(name: str) -> ApiError:
    return ApiError(404, f"The model '{name}' does not exist.", param="model", code="model_not_found")


def found(value: T | None, otherwise: ApiError) -> T:
    if value is None:
        raise otherwise
    return value


def validated(model: type[M], raw: bytes) -> M:
    """JSON text as `model`; raises ApiError 400 naming the field."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        refuse(error, model)


def built(model: type[M], values: dict[str, Any], prefix: str) -> M:
    """Values we composed as `model`; what it refuses is told under the request's own names, `prefix` + field."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        reason = _sentence(first)
        # A rule between fields begins with the field at fault, by its path in the model.
        named = re.match(r"(?:\w+\.)?(\w+) must", reason)
        parts = [named[1]] if named else [part for part in first["loc"] if isinstance(part, str)]
        param = ".".join((prefix, *parts[-1:]))
        raise invalid(f"Invalid value for '{param}': {reason}", param, "invalid_value") from None


def refuse(error: ValidationError, model: type[BaseModel]) -> NoReturn:
    """The first thing pydantic found, with the path of the field in the request."""
    known = _names(model)
    errors = error.errors(include_url=False)
    first = errors[0]
    param = _path(first, known)
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(param.rpartition(".")[2], sorted(known), n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise invalid(f"Unrecognized request argument supplied: {param}.{hint}", param, "unknown_parameter")
    if first["type"] == "missing":
        raise invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if first["type"] == "json_invalid":
        raise invalid(f"We could not parse the JSON body of your request: {first['ctx']['error']}.")
    reasons = " or ".join(dict.fromkeys(_sentence(e) for e in errors if _path(e, known) == param))
    raise invalid(f"Invalid value for '{param}': {reasons}" if param else reasons, param or None, "invalid_value")


def _sentence(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


def _names(model: type[BaseModel]) -> set[str]:
    """Names of all fields of a model and of the models in it."""
    names: set[str] = set()
    for schema in (model.model_json_schema(), *model.model_json_schema().get("$defs", {}).values()):
        names |= set(schema.get("properties", {}))
    return names


def _path(error: Any, known: set[str]) -> str:
    """Drops what pydantic adds to a location: the tags of a union's arms, after which nothing names a field."""
    keys: list[str] = []
    for part in error["loc"]:
        if isinstance(part, str) and part not in known:
            break
        keys.append(str(part))
    if error["type"] == "extra_forbidden" and len(keys) < len(error["loc"]):
        keys.append(str(error["loc"][-1]))
    return ".".join(keys)


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


def outcome(call: Callable[[], T], kind: type[E]) -> T | E:
    """What `call` returns, or the `kind` of error it raises, where that is an answer too."""
    try:
        return call()
    except kind as error:
        return error


def reachable(probe: Callable[[], object]) -> bool:
    """Whether `probe` returns: a part that is away is an answer of the readiness page, not its failure."""
    try:
        probe()
    except Exception as error:
        log.warning("part_away", error=repr(error))
        return False
    return True


def translate(error: Exception) -> ApiError:
    """The answer to any exception a request ended with. Anything not foreseen is a 500 that says nothing of us."""
    match error:
        case ApiError():
            return error
        case BadRow():
            return bad_row(error, "file")
        case Unresolved():
            reason = str(error)
            return invalid(f"{reason[0].upper()}{reason[1:]}.", "onward.invocation", "no_invocation")
        case UnknownTarget():
            return invalid(f"{error}.", "onward.targets", "unknown_target")
        case MissingFile():
            return no_file(error.file_id, None)
        case QuotaExceeded():
            message = f"You exceeded your quota of {error}."
            return ApiError(429, message, kind="insufficient_quota", code="insufficient_quota", headers=FINAL)
        case IdempotencyConflict():
            message = "This Idempotency-Key was used before with a different request body."
            return ApiError(409, message, code="idempotency_key_in_use", headers=FINAL)
        case WrongState():
            message = f"The job is {error.state}: it cannot be {error.wanted}."
            return ApiError(409, message, code="wrong_state", headers=FINAL)
        case RequestValidationError():
            first = error.errors()[0]
            param = str(first["loc"][-1])
            return invalid(f"Invalid value for '{param}': {_sentence(first)}", param, "invalid_value")
        case MultiPartException():
            return invalid(f"The multipart body could not be read: {error.message}", "file")
        case ClientDisconnect():
            return invalid("The request ended before its body did.")
        case HTTPException(status_code=404):
            return ApiError(404, "Unknown request URL.", code="unknown_url")
        case HTTPException(status_code=405):
            return ApiError(405, "Not allowed: method.", code="method_not_allowed", headers=dict(error.headers or {}))
        case HTTPException():
            return ApiError(error.status_code, error.detail, headers=dict(error.headers or {}))
        case DataError():
            # A string PostgreSQL cannot hold (NUL) or a number out of its range, from a path or a query.
            return invalid("A value in the request cannot be stored.")
        case OperationalError() | InterfaceError() | NoConnection():
            message = "The database is not available at the moment. Nothing was changed; try again."
            return ApiError(503, message, kind="server_error", code="unavailable", headers={"retry-after": "1"})
    return ApiError(500, "The server had an error while processing your request.", kind="server_error")


def answer(request: Request, error: Exception) -> JSONResponse:
    known = translate(error)
    if known.status >= 500:
        # Rendered here: structlog's console would print the locals of every frame, and a request's rows are among them.
        said = "".join(traceback.format_exception(error))
        log.error("request_failed", method=request.method, status=known.status, exception=said)
    body = {"message": known.message, "type": known.kind, "param": known.param, "code": known.code}
    return JSONResponse({"error": body}, known.status, known.headers)


def install(app: FastAPI) -> None:
    """Starlette looks handlers up by class: HTTPException and RequestValidationError have defaults to replace, and
    `Exception` is answered by the outermost middleware, which logs what it answers."""
    expected = (
        ApiError, BadRow, Unresolved, UnknownTarget, MissingFile, QuotaExceeded, IdempotencyConflict, WrongState,
        RequestValidationError, MultiPartException, ClientDisconnect, HTTPException, DataError, InterfaceError, 
        OperationalError, NoConnection, Exception,
    )  # fmt: skip
    for kind in expected:
        app.add_exception_handler(kind, answer)
