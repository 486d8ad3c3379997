"""Every way a request can fail, in OpenAI's error shape: by what is raised, or by a Refusal of the contract.

Knows errors, no resource.
"""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from db.contract.refusal import Refusal
from db.contract.rows.jsonl import BadRow

log = structlog.get_logger(__name__)
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
INVALID = "invalid_request_error"


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


def accepted(value: T | Refusal) -> T:
    """What the contract decided; the one place where a refusal of its becomes an answer."""
    if isinstance(value, Refusal):
        raise invalid(value.message, value.field, value.code)
    return value


def refuse(error: ValidationError, model: type[BaseModel]) -> NoReturn:
    """The first thing pydantic found, with the path of the field in the request."""
    known = _names(model)
    errors = error.errors(include_url=False)
    first = errors[0]
    param = _path(first, known)
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(param.rpartition(".")[2], sorted(known - {param.rpartition(".")[2]}), n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise invalid(f"Unrecognized request argument supplied: {param}.{hint}", param, "unknown_parameter")
    if first["type"] == "missing":
        raise invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if first["type"] == "json_invalid":
        raise invalid(f"We could not parse the JSON body of your request: {first['ctx']['error']}.")
    reasons = " or ".join(dict.fromkeys(sentence(e) for e in errors if _path(e, known) == param))
    raise invalid(f"Invalid value for '{param}': {reasons}" if param else reasons, param or None, "invalid_value")


def sentence(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


def _names(model: type[BaseModel]) -> set[str]:
    """Names of all fields of a model and of the models in it."""
    names: set[str] = set()
    for schema in (model.model_json_schema(), *model.model_json_schema().get("$defs", {}).values()):
        names |= set(schema.get("properties", {}))
    return names


def _path(error: Any, known: set[str]) -> str:
    """Drops what pydantic adds to a location: the tags of a union's arms, behind which only names of fields count."""
    keys: list[str] = []
    tagged = False
    for part in error["loc"]:
        if part in known or not (tagged or isinstance(part, str)):
            keys.append(str(part))
        else:
            tagged = True
    if error["type"] == "extra_forbidden" and error["loc"][-1] not in known:
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


def reachable(probe: Callable[[], object]) -> bool:
    """Whether `probe` returns: a part that is away is an answer of the readiness page, not its failure."""
    try:
        probe()
    except Exception as error:
        log.warning("part_away", error=repr(error))
        return False
    return True
