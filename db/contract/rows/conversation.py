"""A chat row from its JSON, in whatever way OpenAI and Azure let it be written. Knows no model and no template."""

from typing import Any, Final

from db.contract.rows import tooling
from db.contract.rows.formats import Chat, Message
from db.contract.rows.jsonl import BadRow, Limits, kind
from db.contract.rows.values import empty, plain, shallow, short, text

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
SAME: Final = {"developer": "system", "function": "tool"}
# What may stand in a message, and on whose turns it means something.
ASSISTANT: Final = ("weight", "refusal", "tool_calls", "function_call", "audio")
PLAIN: Final = frozenset(("role", "content", "name", "weight"))
KEYS: Final = ("role", "content", "name", "tool_call_id", *ASSISTANT)
Part = dict[str, Any]


def chat(row: Part, line: int, limits: Limits) -> Chat:
    """Raises BadRow."""
    messages = turns(row["messages"], line, limits)
    if not any(m.role == "assistant" for m in messages):
        raise BadRow(line, "messages must hold an assistant message: there is nothing to learn", "messages")
    if not any(m.scored for m in messages):
        raise BadRow(line, "every assistant message has weight 0: there is nothing to learn", "messages")
    return Chat(messages, tooling.tools(row, line))


def turns(raw: object, line: int, limits: Limits) -> tuple[Message, ...]:
    """The turns of a conversation, which may be one that waits for its answer. Raises BadRow."""
    if not isinstance(raw, list):
        raise BadRow(line, f"messages must be an array, not {kind(raw)}", "messages")
    if not 1 <= len(raw) <= limits.max_messages:
        raise BadRow(line, f"messages must hold 1 to {limits.max_messages} messages, not {len(raw)}", "messages")
    messages: list[Message] = []
    called: set[str | None] = set()  # ids of calls so far; None for one without
    for i, value in enumerate(raw):
        message = _message(value, line, f"messages[{i}]")
        if message.role == "tool" and message.answers not in called:
            said = "" if message.answers is None else f" with the id {short(message.answers)}"
            raise BadRow(
                line, f"messages[{i}] answers a call{said}, and no message before it makes one", f"messages[{i}]"
            )
        if message.calls:
            called.update(call.get("id") for call in message.calls)
        messages.append(message)
    return tuple(messages)


def unfit(row: Chat, line: int) -> None:
    """Raises BadRow where a turn that is to be learned is empty, or has no user's turn before it. Asked of a file that
    is new; one that was stored without being asked is still read."""
    asked = False
    for i, message in enumerate(row.messages):
        path = f"messages[{i}]"
        asked = asked or message.role == "user"
        if not message.scored:
            continue
        if not asked:
            reason = "is an assistant's turn with no user's turn before it: put one there, or give this one weight 0"
            raise BadRow(line, f"{path} {reason}", path)
        if not message.content.strip() and not message.calls:
            reason = "is an empty assistant's turn: there is nothing to learn in it; fill it, or give it weight 0"
            raise BadRow(line, f"{path} {reason}", path)


def _message(value: object, line: int, path: str) -> Message:
    if not isinstance(value, dict):
        raise BadRow(line, f"{path} must be an object, not {kind(value)}", path)
    if "role" not in value:
        raise BadRow(line, f'the key "{path}.role" is missing', f"{path}.role")
    role = text(value["role"], line, f"{path}.role")
    if role not in ROLES:
        raise BadRow(line, f"{path}.role must be one of {', '.join(ROLES)}, not {short(role)}", f"{path}.role")
    _keys(value, role, line, path)
    calls: tuple[Part, ...] = ()
    if role == "assistant" and ("tool_calls" in value or "function_call" in value):
        calls = tooling.calls(value, line, path + ".")
    name = None if value.get("name") is None else text(value["name"], line, f"{path}.name")
    answers = text(value.get("tool_call_id"), line, f"{path}.tool_call_id") if role == "tool" else None
    if role == "function" and not name:
        raise BadRow(line, f'the key "{path}.name" is missing', f"{path}.name")
    content = _content(value, role, bool(calls), line, path)
    return Message(SAME.get(role, role), content, _scored(value, role, line, path), name, calls, answers)


def _keys(value: Part, role: str, line: int, path: str) -> None:
    """What says nothing is passed over; what says something must be known, and stand where it means it."""
    for key, said in value.items():
        if key in PLAIN or (empty(said) and key != "tool_call_id"):
            continue
        where = f"{path}.{plain(key)}"
        shallow(said, line, where)
        if key not in KEYS:
            raise BadRow(line, f"unknown key {short(f'{path}.{key}')}; expected {', '.join(KEYS)}", where)
        if key == "audio":
            raise BadRow(line, f"{where}: audio is not supported", where)
        if key == "tool_call_id" and role != "tool" and said is not None:
            raise BadRow(line, f"{where} belongs on a message of role tool", where)
        if key in ASSISTANT and role != "assistant":
            raise BadRow(line, f"{where} belongs on an assistant message", where)


def _content(value: Part, role: str, calls: bool, line: int, path: str) -> str:
    """The words of a turn. A refusal is what an assistant says in the place of content."""
    raw, where = value.get("content"), f"{path}.content"
    refusal = value.get("refusal")
    refusal = text(refusal, line, f"{path}.refusal") if not empty(refusal) else ""
    if raw is None and (refusal or calls or role == "function"):
        return refusal
    if "content" not in value:
        raise BadRow(line, f'the key "{where}" is missing', where)
    if isinstance(raw, list):
        shallow(raw, line, where)
        content = "".join(_part(part, role, line, f"{where}[{i}]") for i, part in enumerate(raw))
        if not raw:
            raise BadRow(line, f"{where} must be a string, or an array that holds a part", where)
    elif raw is None and role == "assistant":
        raise BadRow(line, f"{where} is null, and there are no tool calls and no refusal in its place", where)
    else:
        content = text(raw, line, where)
    if content and refusal:
        raise BadRow(line, f"{path} has content and a refusal: keep what the assistant is to say", f"{path}.refusal")
    return content or refusal


def _part(value: object, role: str, line: int, path: str) -> str:
    if not isinstance(value, dict):
        raise BadRow(line, f"{path} must be an object, not {kind(value)}", path)
    type_ = value.get("type")
    if type_ == "text" or (type_ == "refusal" and role == "assistant"):
        return text(value.get(type_), line, f"{path}.{type_}")
    said = short(type_) if isinstance(type_, str) else kind(type_)
    raise BadRow(line, f"{path}: parts of type {said} are not supported, only text", path)


def _scored(value: Part, role: str, line: int, path: str) -> bool:
    weight = value.get("weight")
    if weight is None:
        return role == "assistant"
    known = not isinstance(weight, bool) and weight in (0, 1)
    if not known or (weight and role != "assistant"):  # weight 0 says of other turns what is so anyway
        raise BadRow(line, f"{path}.weight must be 0 or 1, on an assistant message", f"{path}.weight")
    return bool(weight)
