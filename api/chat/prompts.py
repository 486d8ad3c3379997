"""A request's prompts as the base model's tokens, by the contract that training goes by. Knows no worker.

Counted here, so that what does not fit is refused before anything is queued.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from api import errors
from api.chat.request import ChatCreate, CompletionCreate
from api.errors import ApiError
from db.contract.rows import conversation
from db.contract.rows.formats import Chat, Message
from db.contract.rows.jsonl import BadRow, Limits
from db.contract.tokens import chat_template
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import decoded, last_occurrence

USUAL: Final = 16  # tokens of a completion where nothing is said, as OpenAI's
LIMITS: Final = Limits()


@dataclass(frozen=True)
class Prompt:
    """What is to be sent of a request, in the fields of the engine's own, and what it costs: `tokens` of its prompts,
    and `most` of all its answers together."""

    fields: dict[str, Any]
    tokens: int
    most: int


def of_chat(asked: ChatCreate, base: Base, invocation: tuple[int, ...]) -> Prompt:
    """Messages as training reads them: parts joined, roles by one name. Raises ApiError 400."""
    try:
        turns = conversation.turns(asked.messages, 1, LIMITS)
    except BadRow as error:
        raise errors.invalid(f"Invalid value for 'messages': {error.reason}.", error.param, "invalid_value") from error
    tools = tuple(tool.model_dump(exclude_none=True) for tool in asked.tools or ())
    try:
        text = chat_template.render(base, Chat(turns, tools), prompt=True)
    except chat_template.Untemplated as error:
        raise errors.invalid(f"{str(error)[:400]}.", "messages", "invalid_value") from error
    ids = base.tokenizer.encode(text, add_special_tokens=False).ids
    most = _room([ids], asked.most, base, "messages")
    _acts([ids], invocation, base, "messages")
    fields: dict[str, Any] = {"messages": [_wire(turn) for turn in turns]}
    if asked.most is not None:
        fields["max_completion_tokens"] = asked.most
    return Prompt(fields, len(ids), most * (asked.n or 1))


def of_completion(asked: CompletionCreate, base: Base, invocation: tuple[int, ...]) -> Prompt:
    """Raises ApiError 400."""
    each = [base.encode(prompt) if isinstance(prompt, str) else prompt for prompt in asked.prompts]
    strange = next((token for ids in each for token in ids if token >= base.vocab), None)
    if strange is not None:
        raise errors.invalid(f"Token {strange} has no embedding: the model has {base.vocab}.", "prompt")
    if not all(each):
        raise errors.invalid("Invalid value for 'prompt': it has no tokens.", "prompt", "invalid_value")
    wanted = USUAL if asked.most is None else asked.most
    most = _room(each, wanted, base, "prompt")
    _acts(each, invocation, base, "prompt")
    answers = most * len(each) * (asked.n or 1)
    return Prompt({"prompt": asked.prompt, "max_tokens": wanted}, sum(map(len, each)), answers)


def _room(each: Sequence[Sequence[int]], most: int | None, base: Base, param: str) -> int:
    """The most tokens that each answer may have. Raises ApiError 400 where the context does not hold them."""
    longest = max(map(len, each))
    left = base.context - longest
    if left < max(1, most or 1):
        asked = f"{longest} in the {param}, {most} in the completion" if most else f"{longest} in the {param}"
        message = f"This model's maximum context length is {base.context} tokens, and you asked for more: {asked}."
        raise errors.invalid(message, param, "context_length_exceeded")
    return left if most is None else most


def _acts(each: Sequence[Sequence[int]], invocation: tuple[int, ...], base: Base, param: str) -> None:
    """Raises ApiError 400 where an adapter of activation `answer` would never act."""
    if invocation and any(last_occurrence(tuple(ids), invocation) is None for ids in each):
        raise missing_invocation(decoded(base, invocation), param)


def missing_invocation(text: str, param: str) -> ApiError:
    message = (
        f"This model answers from the text {text!r} on, which the {param} does not have: without it the adapter would "
        "not act."
    )
    return errors.invalid(message, param, "invocation_missing")


def _wire(turn: Message) -> dict[str, Any]:
    """A turn as OpenAI writes it: what the contract has read, so that whoever renders it comes to the same text."""
    said: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.name is not None:
        said["name"] = turn.name
    if turn.calls:
        said["tool_calls"] = [_call(call, i) for i, call in enumerate(turn.calls)]
    if turn.role == "tool":
        said["tool_call_id"] = turn.answers or "call_0"
    return said


def _call(call: dict[str, Any], number: int) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    named = {"name": function["name"], "arguments": arguments}
    return {"id": call.get("id", f"call_{number}"), "type": "function", "function": named}
