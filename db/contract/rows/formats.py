"""The three shapes of a training row and what each may hold. Knows parsed JSON only."""

from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from db.contract.rows.jsonl import BadRow, Limits, kind

Format = Literal["chat", "completion", "choice"]
FORMATS: tuple[Format, ...] = ("chat", "completion", "choice")
ROLES = ("system", "user", "assistant")
TOOLS = frozenset(("tools", "functions", "tool_calls", "function_call", "tool_call_id", "parallel_tool_calls"))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `scored` is true for an assistant turn, unless its `weight` was 0."""

    role: str
    content: str
    scored: bool


@dataclass(frozen=True, slots=True)
class Chat:
    """{"messages": [{"role", "content", "weight"?}, ...]}: the scored assistant turns are learned."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """{"prompt", "completion"}: the completion and the end after it are learned."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Choice:
    """{"prompt", "choices", "label"}: choices[label] is to become the likeliest continuation."""

    prompt: str
    choices: tuple[str, ...]
    label: int


Row = Chat | Completion | Choice


def build(value: dict[str, Any], line: int, limits: Limits) -> Row:
    """The row that a JSON object is. Raises BadRow."""
    if "messages" in value:
        return _chat(value, line, limits)
    if "choices" in value or "label" in value:
        return _choice(value, line, limits)
    if "completion" in value or "prompt" in value:
        return _completion(value, line)
    _refuse_tools(value, line, "")
    raise BadRow(line, 'has none of the keys of a row: "messages", or "prompt" with "completion" or "choices"')


def _completion(value: dict[str, Any], line: int) -> Completion:
    _keys(value, ("prompt", "completion"), (), line, "")
    prompt, completion = (_text(value[key], line, key) for key in ("prompt", "completion"))
    if not completion:
        raise BadRow(line, "completion must not be empty", "completion")
    return Completion(prompt, completion)


def _choice(value: dict[str, Any], line: int, limits: Limits) -> Choice:
    _keys(value, ("prompt", "choices", "label"), (), line, "")
    prompt = _text(value["prompt"], line, "prompt")
    raw, label = value["choices"], value["label"]
    if not isinstance(raw, list):
        raise BadRow(line, f"choices must be an array of strings, not {kind(raw)}", "choices")
    if not 2 <= len(raw) <= limits.max_choices:
        raise BadRow(line, f"choices must hold 2 to {limits.max_choices} strings, not {len(raw)}", "choices")
    choices = tuple(_text(choice, line, f"choices[{i}]") for i, choice in enumerate(raw))
    for i, choice in enumerate(choices):
        if not choice:
            raise BadRow(line, f"choices[{i}] must not be empty", f"choices[{i}]")
        if choice in choices[:i]:
            raise BadRow(line, f"choices[{i}] repeats choices[{choices.index(choice)}]", f"choices[{i}]")
    if type(label) is not int:
        raise BadRow(line, f"label must be a whole number, not {kind(label)}", "label")
    if not 0 <= label < len(choices):
        raise BadRow(line, f"label {label} is out of range: choices count from 0 to {len(choices) - 1}", "label")
    return Choice(prompt, choices, label)


def _chat(value: dict[str, Any], line: int, limits: Limits) -> Chat:
    _keys(value, ("messages",), (), line, "")
    raw = value["messages"]
    if not isinstance(raw, list):
        raise BadRow(line, f"messages must be an array, not {kind(raw)}", "messages")
    if not 1 <= len(raw) <= limits.max_messages:
        raise BadRow(line, f"messages must hold 1 to {limits.max_messages} messages, not {len(raw)}", "messages")
    messages = tuple(_message(message, line, f"messages[{i}]") for i, message in enumerate(raw))
    if not any(m.role == "assistant" for m in messages):
        raise BadRow(line, "messages must hold an assistant message: there is nothing to learn", "messages")
    if not any(m.scored for m in messages):
        raise BadRow(line, "every assistant message has weight 0: there is nothing to learn", "messages")
    return Chat(messages)


def _message(value: object, line: int, path: str) -> Message:
    if not isinstance(value, dict):
        raise BadRow(line, f"{path} must be an object, not {kind(value)}", path)
    if value.get("role") in ("tool", "function"):
        raise BadRow(line, f"{path}: tools and functions are not supported", f"{path}.role")
    _keys(value, ("role", "content"), ("weight",), line, path + ".")
    role = _text(value["role"], line, f"{path}.role")
    if role not in ROLES:
        raise BadRow(line, f"{path}.role must be one of {', '.join(ROLES)}, not {_short(role)}", f"{path}.role")
    content = _text(value["content"], line, f"{path}.content")
    if "weight" not in value:
        return Message(role, content, role == "assistant")
    weight = value["weight"]
    if role != "assistant" or isinstance(weight, bool) or weight not in (0, 1):
        raise BadRow(line, f"{path}.weight must be 0 or 1, on an assistant message", f"{path}.weight")
    return Message(role, content, bool(weight))


def _keys(value: dict[str, Any], needed: tuple[str, ...], allowed: tuple[str, ...], line: int, path: str) -> None:
    for key in needed:
        if key not in value:
            _refuse_tools(value, line, path)
            raise BadRow(line, f'the key "{path}{key}" is missing', path + key)
    unknown = [key for key in value if key not in needed and key not in allowed]
    if unknown:
        _refuse_tools(value, line, path)
        names = ", ".join((*needed, *allowed))
        raise BadRow(line, f"unknown key {_short(path + unknown[0])}; expected {names}", _plain(path + unknown[0]))


def _refuse_tools(value: dict[str, Any], line: int, path: str) -> None:
    for key in value:
        if key in TOOLS:
            raise BadRow(line, f"{path}{key}: tools and functions are not supported", path + key)


def _text(value: object, line: int, path: str) -> str:
    if not isinstance(value, str):
        raise BadRow(line, f"{path} must be a string, not {kind(value)}", path)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            _surrogate(line, path)
    return value


def _surrogate(line: int, path: str) -> NoReturn:
    raise BadRow(line, f"{path} holds half of a surrogate pair (\\ud800 to \\udfff), which is not text", path)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _plain(text: str) -> str:
    # It travels in an answer, which must be text, even where the key is not.
    return text[:40].encode("utf-8", "backslashreplace").decode()
