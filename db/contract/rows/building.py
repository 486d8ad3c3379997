"""Which row a JSON object is, and what each format may hold. Knows parsed JSON only."""

from typing import Any, Final

from db.contract.rows import conversation, foreign
from db.contract.rows.formats import Chat, Choice, Completion, Row
from db.contract.rows.jsonl import BadRow, Limits, kind
from db.contract.rows.values import empty, plain, shallow, text

NONE: Final = (
    'has none of the keys of a row: "messages", or "prompt" with "completion" or "choices" (of plain text: an empty '
    '"prompt", and the text as "completion")'
)
OURS: Final = ("messages", "tools", "functions", "choices")  # looked into already
# Words at the top of a row that mean something, but not there: to pass over them would change what is learned.
ELSEWHERE: Final = {
    "weight": "weight belongs on an assistant message",
    "system": "system belongs among the messages: make it the first, of role system",
}


def build(value: dict[str, Any], line: int, limits: Limits) -> Row:
    """The row that a JSON object is. What it holds beside the keys of its format is passed over. Raises BadRow."""
    foreign.refuse(value, line)
    formats = [key for key in ("messages", "completion", "choices") if key in value]
    if len(formats) > 1:
        raise BadRow(line, f"has the keys of two formats: {formats[0]} and {formats[1]}", formats[1])
    row: Row
    if "messages" in value:
        row = conversation.chat(value, line, limits)
    elif "choices" in value or ("label" in value and "completion" not in value):
        row = _choice(value, line, limits)
    elif "completion" in value or "prompt" in value:
        row = _completion(value, line)
    else:
        raise BadRow(line, NONE)
    _beside(value, row, line)
    return row


def unfit(row: Row, line: int) -> None:
    """Raises BadRow where a row can be read and nothing good can be learned of it: asked of files that are new."""
    if isinstance(row, Chat):
        conversation.unfit(row, line)


def _beside(value: dict[str, Any], row: Row, line: int) -> None:
    for key, said in value.items():
        if key in ELSEWHERE and not empty(said):
            raise BadRow(line, ELSEWHERE[key], key)
        if key in ("tools", "functions") and not isinstance(row, Chat) and not empty(said):
            raise BadRow(line, f"{key} belong in a chat row", key)
        if key not in OURS and isinstance(said, dict | list):
            shallow(said, line, plain(key))


def _completion(value: dict[str, Any], line: int) -> Completion:
    _needed(value, ("prompt", "completion"), line)
    prompt, completion = (text(value[key], line, key) for key in ("prompt", "completion"))
    if not completion:
        raise BadRow(line, "completion must not be empty", "completion")
    return Completion(prompt, completion)


def _choice(value: dict[str, Any], line: int, limits: Limits) -> Choice:
    _needed(value, ("prompt", "choices", "label"), line)
    prompt = text(value["prompt"], line, "prompt")
    raw, label = value["choices"], value["label"]
    if not isinstance(raw, list):
        raise BadRow(line, f"choices must be an array of strings, not {kind(raw)}", "choices")
    if not 2 <= len(raw) <= limits.max_choices:
        raise BadRow(line, f"choices must hold 2 to {limits.max_choices} strings, not {len(raw)}", "choices")
    choices = tuple(text(choice, line, f"choices[{i}]") for i, choice in enumerate(raw))
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


def _needed(value: dict[str, Any], keys: tuple[str, ...], line: int) -> None:
    for key in keys:
        if key not in value:
            raise BadRow(line, f'the key "{key}" is missing', key)
