"""A request's JSON body as one of the wire types, and what pydantic found in it in our words. Knows no resource."""

import difflib
from functools import cache
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from api import errors

M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], raw: bytes) -> M:
    """JSON text as `model`; raises ApiError 400 naming the field."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        refuse(error, model)


def refuse(error: ValidationError, model: type[BaseModel]) -> NoReturn:
    """The first thing pydantic found, with the path of the field in the request."""
    known = _names(model)
    found = error.errors(include_url=False)
    first = found[0]
    param = _path(first, known)
    if first["type"] == "extra_forbidden":
        meant = _meant(model, param)
        hint = f" Did you mean '{meant}'?" if meant else ""
        raise errors.invalid(f"Unrecognized request argument supplied: {param}.{hint}", param, "unknown_parameter")
    if first["type"] == "missing":
        raise errors.invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if first["type"] == "json_invalid":
        raise errors.invalid(f"We could not parse the JSON body of your request: {first['ctx']['error']}.")
    reasons = " or ".join(dict.fromkeys(errors.sentence(e) for e in found if _path(e, known) == param))
    raise errors.invalid(
        f"Invalid value for '{param}': {reasons}" if param else reasons, param or None, "invalid_value"
    )


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Made once a process, and to be read only: for a job pydantic works a tenth of a second on it, each time."""
    return model.model_json_schema()


@cache
def _names(model: type[BaseModel]) -> frozenset[str]:
    """Names of all fields of a model and of the models in it."""
    whole = _schema(model)
    return frozenset(name for part in (whole, *whole.get("$defs", {}).values()) for name in part.get("properties", {}))


def _meant(model: type[BaseModel], param: str) -> str | None:
    """The path of the field that `param` may have been meant for: of the same name elsewhere, or of one much like it,
    near first."""
    schema = _schema(model)
    paths = [path for path in _paths(schema, schema, "") if path != param]
    beside, _, name = param.rpartition(".")
    if beside.endswith("method") and any(path.rpartition(".")[2] == name for path in paths):
        return None  # a setting that its method has not
    close = difflib.get_close_matches(name, sorted({path.rpartition(".")[2] for path in paths}), n=1)
    if not close:
        return None
    named = [path for path in paths if path.rpartition(".")[2] == close[0]]
    return min(named, key=lambda path: (path.rpartition(".")[0] != beside, path.count("."), path))


def _paths(part: Any, schema: dict[str, Any], before: str, inside: tuple[str, ...] = ()) -> set[str]:
    """The paths of all fields of a part of a JSON schema."""
    found: set[str] = set()
    if (ref := part.get("$ref")) is not None and ref not in inside:
        found |= _paths(schema["$defs"][ref.rpartition("/")[2]], schema, before, (*inside, ref))
    for name, field in part.get("properties", {}).items():
        path = f"{before}.{name}" if before else name
        found |= {path} | _paths(field, schema, path, inside)
    for arm in (*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("allOf", ())):
        found |= _paths(arm, schema, before, inside)
    return found


def _path(error: Any, known: frozenset[str]) -> str:
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
