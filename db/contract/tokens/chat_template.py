"""Conversations as text: a model's own chat template, and which characters of it are to be learned. Knows no tokens."""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import TemplateError, ext, nodes, parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from db.contract.rows.formats import Chat
from db.contract.tokens.base_model import Base

Span = tuple[int, int, int]  # characters: where a scored turn starts, where its content ends, where the turn ends


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
    messages = [{"role": m.role, "content": m.content} for m in chat.messages[:upto]]
    try:
        return _compiled(base.chat_template)(
            messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **base.special_tokens
        )
    except Exception as error:  # a template is a program: what it raises is unbounded
        raise Untemplated(f"the chat template of {base.name} refuses the messages: {error}") from error


def text(base: Base, chat: Chat) -> str:
    """The text of a conversation up to its last scored turn: nothing after it is ever forwarded. Raises Untemplated."""
    return render(base, chat, _last_scored(chat) + 1)


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
        found.append((len(before), len(after) if place < 0 else place + len(content), len(after)))
    return found


def _last_scored(chat: Chat) -> int:
    return max(i for i, message in enumerate(chat.messages) if message.scored)
