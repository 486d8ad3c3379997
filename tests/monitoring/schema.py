"""Whether JSON is a dashboard of Grafana's: read by the foundation SDK's types and written again, unchanged.

The SDK is generated from Grafana's own schema. Reading drops a field that a type does not have, so what comes back is
compared; and it takes any value, and leaves some objects unread, so each is held to the type of its field here.
"""

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

plugins.register_default_plugins()  # the types of panels' options and of Prometheus' queries


def faults(board: Mapping[str, Any]) -> list[str]:
    """What of a dashboard Grafana's schema does not have: unknown fields, wrong types, values of no enumeration."""
    read = Dashboard.from_json(dict(board))
    written = json.loads(json.dumps(read, cls=JSONEncoder))
    return [*_lost(board, written, ""), *_mistyped(read, Dashboard, "")]


def _lost(given: Any, kept: Any, at: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            yield from _lost(value, kept[key], f"{at}.{key}") if key in kept else [f"{at}.{key}: unknown"]
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{at}[{number}]")
    elif given != kept:
        yield f"{at}: {given!r} is read as {kept!r}"


def _mistyped(value: Any, hint: Any, at: str) -> Iterator[str]:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        likely = [one for one in inner if type(value) is one or one is type(None) is type(value)]
        tried = [list(_mistyped(value, one, at)) for one in likely or [one for one in inner if one is not type(None)]]
        yield from min(tried, key=len)
    elif origin is list and isinstance(value, list):
        for number, one in enumerate(value):
            yield from _mistyped(one, inner[0], f"{at}[{number}]")
    elif origin is dict and isinstance(value, dict):
        for key, one in value.items():
            yield from _mistyped(one, inner[1], f"{at}.{key}")
    elif isinstance(value, dict) and hasattr(hint, "from_json"):  # what its owner's type has left unread
        read = hint.from_json(value)
        yield from _lost(value, json.loads(json.dumps(read, cls=JSONEncoder)), at)
        yield from _mistyped(read, hint, at)
    elif not _is(value, hint):
        yield f"{at}: {value!r} is no {getattr(hint, '__name__', hint)}"
    elif hasattr(value, "from_json"):
        for field, of in get_type_hints(type(value)).items():
            yield from _mistyped(getattr(value, field), of, f"{at}.{field}")


def _is(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if not isinstance(hint, type):
        return hint is Any
    if issubclass(hint, Enum):
        return value in [one.value for one in hint]
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return hint is object or isinstance(value, hint)
