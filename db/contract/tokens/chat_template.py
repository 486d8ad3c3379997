"""Conversations as text: a model's own chat template, and which characters of it are to be learned. Knows no tokens."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

from jinja2 import TemplateError, ext, nodes, parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from db.contract.rows.formats import Chat, Message
from db.contract.tokens.base_model import Base


class Span(NamedTuple):
    """Characters of a scored turn: where it starts, where its content ends, where it ends. What closes it follows its
    content, or its tool calls where it makes any (`calls`)."""

    start: int
    content: int
    end: int
    calls: bool


class Untemplated(ValueError):
    """A conversation that the model's template cannot render, or a model without one; the message says why."""


class _Generation(ext.Extension):
    """{% generation %} marks the assistant's part for transformers; what it holds is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: parser.Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)


@lru_cache(maxsize=64)
def _compiled(template: str) -> Callable[..., str]:
    # As transformers renders them, but without `strftime_now`: a text must not depend on the day it is rendered.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    return environment.from_string(template).render


def render(base: Base, chat: Chat, upto: int | None = None, prompt: bool = False) -> str:
    """The text of the first `upto` messages; with `prompt`, and the opening of an assistant turn after them.

    Raises Untemplated.
    """
    if base.chat_template is None:
        raise Untemplated(f"{base.name} has no chat template: send prompt and completion instead of messages")
    messages = [_turn(message) for message in chat.messages[:upto]]
    tools = list(chat.tools) or None
    try:
        return _compiled(base.chat_template)(
            messages=messages, tools=tools, documents=None, add_generation_prompt=prompt, **base.special_tokens
        )
    except Exception as error:  # a template is a program: what it raises is unbounded
        raise Untemplated(f"the chat template of {base.name} refuses the messages: {error}") from error


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        turn["name"] = message.name
    if message.calls:
        turn["tool_calls"] = list(message.calls)
    if message.answers is not None:
        turn["tool_call_id"] = message.answers
    return turn


def text(base: Base, chat: Chat) -> str:
    """The text of a conversation up to its last scored turn: nothing after it is ever forwarded.

    Raises Untemplated, also where the template leaves out tools, calls of them or their answers: what a model is to
    learn would then not be what it is shown.
    """
    heard = replace(chat, messages=chat.messages[: _last_scored(chat) + 1])
    full = render(base, heard)
    for what, without in _bare(heard):
        if full == _rendered(base, without):
            reason = f"its chat template leaves {what} out; train these rows on a base whose template shows them"
            raise Untemplated(f"{base.name} cannot be trained on tools: {reason}")
    return full


def _bare(chat: Chat) -> Iterator[tuple[str, Chat]]:
    """The conversation without each thing of tools that it has, and what that is."""
    if chat.tools:
        yield "tools", replace(chat, tools=())
    if any(m.calls for m in chat.messages):
        yield "tool_calls", replace(chat, messages=tuple(replace(m, calls=()) for m in chat.messages))
    if any(m.role == "tool" and m.content for m in chat.messages):
        silent = (replace(m, content="") if m.role == "tool" else m for m in chat.messages)
        yield "messages of role tool", replace(chat, messages=tuple(silent))


def _rendered(base: Base, chat: Chat) -> str | None:
    try:
        return render(base, chat)
    except Untemplated:  # so the template looks at what is missing
        return None


def spans(base: Base, chat: Chat, full: str) -> list[Span]:
    """The span of every scored turn in `full`, the `text` of the conversation.

    A turn starts where the text of the messages before it, with the opening of an assistant turn, ends; it ends with
    the text of the messages up to it. Raises Untemplated where the texts are not prefixes of one another, so that
    the turn cannot be told.
    """
    last, found = _last_scored(chat), []
    for i, message in enumerate(chat.messages):
        if not message.scored:
            continue
        before = render(base, chat, i, prompt=True)
        after = full if i == last else render(base, chat, i + 1)
        if not (full.startswith(after) and after.startswith(before)):
            raise Untemplated(f"the chat template of {base.name} rewrites the turns before messages[{i}]")
        content = message.content.strip()  # as many templates do
        place = after.rfind(content, len(before)) if content else len(before)
        told = len(after) if place < 0 else place + len(content)
        if unseen := next((n for n in _names(message) if n not in after[len(before) :]), None):
            raise Untemplated(f"the chat template of {base.name} leaves the call of {unseen!r} in messages[{i}] out")
        found.append(Span(len(before), told, len(after), bool(message.calls)))
    return found


def _names(message: Message) -> Iterator[str]:
    return (str(call["function"]["name"]) for call in message.calls)


def _last_scored(chat: Chat) -> int:
    return max(i for i, message in enumerate(chat.messages) if message.scored)
