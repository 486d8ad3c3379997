"""Tools and the calls of them, in OpenAI's present and deprecated writing, as chat templates take them."""

from typing import Any

from db.contract.rows.jsonl import BadRow, kind, parse_object
from db.contract.rows.values import sendable, short, text

Part = dict[str, Any]


def tools(row: Part, line: int) -> tuple[Part, ...]:
    """The tools a row offers: `tools`, or the deprecated `functions`. Raises BadRow."""
    new, old = _array(row, "tools", line, ""), _array(row, "functions", line, "")
    if new and old:
        raise BadRow(line, "tools and functions say the same in two ways: keep one of them", "functions")
    if old:
        for i, function in enumerate(old):
            _named(function, line, f"functions[{i}]")
        found = [{"type": "function", "function": function} for function in old]
    else:
        for i, tool in enumerate(new):
            path = f"tools[{i}]"
            _named(_function(tool, line, path), line, f"{path}.function")
        found = new
    if found:
        sendable(found, line, "functions" if old else "tools")
    return tuple(found)


def calls(message: Part, line: int, path: str) -> tuple[Part, ...]:
    """The calls an assistant's turn makes: `tool_calls`, or the deprecated `function_call`. Raises BadRow."""
    new, old = _array(message, "tool_calls", line, path), message.get("function_call")
    if old is None:
        return tuple(_call(one, line, f"{path}tool_calls[{i}]") for i, one in enumerate(new))
    if new:
        raise BadRow(line, f"{path}tool_calls and function_call are both there: keep one of them", path + "tool_calls")
    return ({"type": "function", "function": _called(old, line, f"{path}function_call")},)


def _call(value: object, line: int, path: str) -> Part:
    function = _function(value, line, path)
    assert isinstance(value, dict)
    if "id" not in value:
        raise BadRow(line, f'the key "{path}.id" is missing', f"{path}.id")
    name = text(value["id"], line, f"{path}.id")
    return {"id": name, "type": "function", "function": _called(function, line, f"{path}.function")}


def _called(value: object, line: int, path: str) -> Part:
    name = _named(value, line, path)
    assert isinstance(value, dict)
    raw = value.get("arguments")
    if raw is None or raw == "":
        return {"name": name, "arguments": {}}
    if isinstance(raw, str):
        try:
            raw = parse_object(text(raw, line, f"{path}.arguments").encode(), line)
        except BadRow as error:
            raise BadRow(line, f"{path}.arguments: {error.reason}", f"{path}.arguments") from error
    if not isinstance(raw, dict):
        raise BadRow(line, f"{path}.arguments must be a JSON object in a string, not {kind(raw)}", f"{path}.arguments")
    sendable(raw, line, f"{path}.arguments")
    return {"name": name, "arguments": raw}


def _array(value: Part, key: str, line: int, path: str) -> list[Any]:
    raw = value.get(key)
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise BadRow(line, f"{path}{key} must be an array, not {kind(raw)}", path + key)
    return raw


def _function(value: object, line: int, path: str) -> object:
    if not isinstance(value, dict):
        raise BadRow(line, f"{path} must be an object, not {kind(value)}", path)
    type_ = value.get("type", "function")
    if type_ != "function":
        said = short(type_) if isinstance(type_, str) else kind(type_)
        raise BadRow(line, f"{path}: of tools, functions alone are supported, not {said}", f"{path}.type")
    return value.get("function")


def _named(value: object, line: int, path: str) -> str:
    if not isinstance(value, dict):
        raise BadRow(line, f"{path} must be an object, not {kind(value)}", path)
    name = text(value.get("name"), line, f"{path}.name")
    if not name:
        raise BadRow(line, f"{path}.name must not be empty", f"{path}.name")
    return name
