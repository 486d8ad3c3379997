"""`onward chat MODEL`: a conversation with a base model, an adapter, a step, or a job that trains. Knows the client."""

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cli import show
from cli.client import Failure, connect

if TYPE_CHECKING:
    from openai import OpenAI

END = ("/exit", "/quit")
NEW = "/new"
STEERING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f]")  # what a terminal would obey: an answer is text
Message = dict[str, str]


def chat(
    model: Annotated[str, typer.Argument(help="A base model, ft:…, ft:…:ckpt-step-N, or ft:…:live while it trains.")],
    text: Annotated[str | None, typer.Argument(help="What to ask, once; a conversation without it.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before all.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The most that an answer may have.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is the likeliest, 2 the wildest.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same again, on the same step.")] = None,
    as_json: show.Json = False,
) -> None:
    """Ask a model, and read its answer as it comes. /new begins anew, /exit or the end of input ends it."""
    wanted = {"max_completion_tokens": max_tokens, "temperature": temperature, "seed": seed}
    fields = {name: value for name, value in wanted.items() if value is not None}
    talk = Talk(connect(timeout=600.0), model, system, fields)
    if text is None and not sys.stdin.isatty():
        text = sys.stdin.read().strip()
        if not text:
            raise Failure("nothing was asked", "onward chat MODEL TEXT, or text on standard input")
    if text is not None:
        said, who = talk.say(text, aloud=not as_json)
        return show.as_json({"model": who, "content": said}) if as_json else None
    if as_json:
        raise Failure("a conversation is no JSON document", "onward chat MODEL TEXT --json")
    return _converse(talk)


class Talk:
    """A conversation so far."""

    def __init__(self, client: "OpenAI", model: str, system: str | None, fields: dict[str, Any]) -> None:
        self._client, self._model, self._fields = client, model, fields
        self._first: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self._said = list(self._first)

    def anew(self) -> None:
        self._said = list(self._first)

    def say(self, text: str, aloud: bool = True) -> tuple[str, str]:
        """What is answered, printed as it comes where `aloud`, and the exact name of who answered. An answer that
        breaks off is no part of the conversation."""
        asked = [*self._said, {"role": "user", "content": text}]
        messages: Any = asked
        pieces, who = [], self._model
        stream = self._client.chat.completions.create(model=self._model, messages=messages, stream=True, **self._fields)
        for part in stream:
            who = part.model
            piece = (part.choices[0].delta.content if part.choices else None) or ""
            pieces.append(piece)
            if aloud and piece:
                sys.stdout.write(STEERING.sub("\N{REPLACEMENT CHARACTER}", piece))
                sys.stdout.flush()
        if aloud:
            sys.stdout.write("\n")
            if who != self._model:
                show.err.print(Text(who, style="dim"))
        answer = "".join(pieces)
        self._said = [*asked, {"role": "assistant", "content": answer}]
        return answer, who


def _converse(talk: Talk) -> None:
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            sys.stdout.write("\n")
            return
        if text in END:
            return
        if text == NEW:
            talk.anew()
        elif text:
            talk.say(text)
