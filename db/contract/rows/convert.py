"""ShareGPT and Alpaca files as chat rows, object by object, in an array or not. Knows no file and no network."""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Final

from db.contract.rows.foreign import Source, source
from db.contract.rows.jsonl import BadRow, kind
from db.contract.rows.values import empty, short, text

LONGEST: Final = 16 << 20  # characters of one object, which is held whole
BETWEEN: Final = " \t\r\n,[]"
END: Final = ""
SPEAKERS: Final = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "model": "assistant",
}  # fmt: skip
Part = dict[str, Any]


def converted(chunks: Iterable[bytes], given: Source | None = None) -> Iterator[bytes | None]:
    """The lines of a JSONL file, each an object of the source made a chat row; None for one in which there is nothing
    to learn. Each object says what it is, unless `given` does; what is of no such format stays as it is.

    Raises BadRow, whose line counts objects, where something cannot be read.
    """
    for number, value in objects(chunks):
        known = given or source(value)
        row = value if known is None else CONVERTERS[known](value, number)
        yield None if row is None else json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def objects(chunks: Iterable[bytes]) -> Iterator[tuple[int, Part]]:
    """(number from 1, object) of JSON objects one after another: a line each, printed over several, or in an array."""
    decoder, rest, number, enough = json.JSONDecoder(), "", 0, 0
    for piece in chain(_texts(chunks), (END,)):
        rest += piece
        if piece and len(rest) < enough:  # doubled each time, so that an object is tried a few times, not once a piece
            continue
        at = _next(rest, 0)
        while at < len(rest):
            if rest[at] != "{":
                raise BadRow(number + 1, f"a JSON object must begin where {short(rest[at : at + 20])} stands")
            try:
                value, end = decoder.raw_decode(rest, at)
            except (ValueError, RecursionError) as error:
                if piece is END:
                    raise BadRow(number + 1, f"not valid JSON: {error}") from error
                break  # not whole yet, or never
            number, at = number + 1, _next(rest, end)
            yield number, value
        rest = rest[at:]
        enough = 2 * len(rest)
        if len(rest) > LONGEST:
            raise BadRow(number + 1, f"no JSON object ends within {LONGEST} characters")


def _next(text: str, at: int) -> int:
    while at < len(text) and text[at] in BETWEEN:
        at += 1
    return at


def _texts(chunks: Iterable[bytes]) -> Iterator[str]:
    """As UTF-8, a byte-order mark left out; no piece is empty. Raises BadRow."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        for chunk in chunks:
            if piece := decoder.decode(chunk):
                yield piece
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise BadRow(1, "the file is not valid UTF-8") from error


def _sharegpt(value: Part, number: int) -> Part | None:
    turns = value.get("conversations", value.get("conversation"))
    if not isinstance(turns, list):
        raise BadRow(number, f"conversations must be an array, not {kind(turns)}", "conversations")
    if not empty(value.get("tools")):
        raise BadRow(number, "tools are not converted: write them as OpenAI's `tools` and `tool_calls`", "tools")
    messages = _system(value, number)
    for i, turn in enumerate(turns):
        path = f"conversations[{i}]"
        if not isinstance(turn, dict):
            raise BadRow(number, f"{path} must be an object, not {kind(turn)}", path)
        speaker = text(turn.get("from", turn.get("role")), number, f"{path}.from")
        if speaker not in SPEAKERS:
            raise BadRow(number, f"{path} is from {short(speaker)}; known are {', '.join(SPEAKERS)}", f"{path}.from")
        said = text(turn.get("value", turn.get("content")), number, f"{path}.value")
        messages.append({"role": SPEAKERS[speaker], "content": said})
    return _chat(messages)


def _alpaca(value: Part, number: int) -> Part | None:
    messages = _system(value, number)
    for i, pair in enumerate(value.get("history") or ()):
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow(number, f"history[{i}] must be an array of a question and an answer", f"history[{i}]")
        asked, answered = (text(said, number, f"history[{i}]") for said in pair)
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    asked, more = text(value.get("instruction"), number, "instruction"), value.get("input")
    if not empty(more):
        asked = f"{asked}\n\n{text(more, number, 'input')}"
    answer = text(value.get("output"), number, "output")
    return _chat([*messages, {"role": "user", "content": asked}, {"role": "assistant", "content": answer}])


def _system(value: Part, number: int) -> list[Part]:
    said = value.get("system")
    return [] if empty(said) else [{"role": "system", "content": text(said, number, "system")}]


def _chat(messages: list[Part]) -> Part | None:
    """The row, with weight 0 on assistant's turns that say nothing or come before any user's; None where none else is
    there."""
    asked = learned = False
    for message in messages:
        asked = asked or message["role"] == "user"
        if message["role"] == "assistant":
            if asked and message["content"].strip():
                learned = True
            else:
                message["weight"] = 0
    return {"messages": messages} if learned else None


CONVERTERS: Final[dict[Source, Callable[[Part, int], Part | None]]] = {"sharegpt": _sharegpt, "alpaca": _alpaca}
