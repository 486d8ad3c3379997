"""Rows of other formats, known by their keys and called by their names. Knows what they are, trains none."""

from typing import Any, Final, Literal, NoReturn

from db.contract.rows.jsonl import BadRow

Source = Literal["sharegpt", "alpaca"]
SOURCES: Final[tuple[Source, ...]] = ("sharegpt", "alpaca")
PREFERENCE: Final = frozenset(
    ("preferred_output", "non_preferred_output", "preferred_completion", "non_preferred_completion")
)
CONVERTED: Final = "`onward files convert` makes chat rows of the file, and so does `onward files upload --from"


def source(row: dict[str, Any]) -> Source | None:
    """The format of a row that can be converted, by its keys."""
    if "messages" in row:
        return None
    if isinstance(row.get("conversations", row.get("conversation")), list):
        return "sharegpt"
    return "alpaca" if "instruction" in row and "output" in row else None


def refuse(row: dict[str, Any], line: int) -> None:
    """Raises BadRow for a row that is known to be of another kind."""
    if not PREFERENCE.isdisjoint(row) or ("chosen" in row and "rejected" in row):
        preference(line, "a better and a worse answer")
    if "completion" in row and type(row.get("label")) is bool:
        preference(line, "an answer and whether it is liked")
    found = source(row)
    if found == "sharegpt":
        raise BadRow(line, f"this is a ShareGPT row (conversations of from and value): {CONVERTED} sharegpt`")
    if found == "alpaca":
        raise BadRow(line, f"this is an Alpaca row (instruction, input, output): {CONVERTED} alpaca`")
    if "contents" in row and "messages" not in row:
        raise BadRow(line, "this is a Gemini row (contents of parts): write its turns as messages of role and content")
    if "custom_id" in row and "body" in row:
        raise BadRow(line, "this is a request of the Batch API (custom_id, body), not a training row")


def preference(line: int, what: str) -> NoReturn:
    raise BadRow(line, f"this is a preference row ({what}, as for DPO): Onward does not train on preferences")
