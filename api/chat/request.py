"""What may be asked of a model: OpenAI's fields and no other, in types and ranges. Knows no model and no worker.

Whatever is not listed is refused by name: the engine's own options are nobody's but ours.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api import errors

CHOICES: Final = 16  # of one prompt
PROMPTS: Final = 16  # of one request
STOPS: Final = 4
NO_TEXT: Final = re.compile("[\0\ud800-\udfff]")

Finite = Annotated[float, Field(allow_inf_nan=False)]
Identifier = Annotated[str, Field(min_length=1, max_length=200)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Token = Annotated[str, Field(pattern=r"^(0|[1-9]\d{0,6})$")]
Id = Annotated[int, Field(ge=0, lt=2**31)]
Penalty = Annotated[Finite, Field(ge=-2, le=2)] | None
Pair = Annotated[str, Field(max_length=512)]


class Strict(BaseModel):
    """Unknown keys and wrong types are refused; null is as if it were not there."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Strict):
    include_usage: bool | None = None


class Schema(Strict):
    name: Annotated[str, Field(pattern=r"^[\w-]{1,64}$")]
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class PlainFormat(Strict):
    type: Literal["text", "json_object"]


class SchemaFormat(Strict):
    type: Literal["json_schema"]
    json_schema: Schema


class Function(Strict):
    name: Annotated[str, Field(pattern=r"^[\w-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


class Named(Strict):
    name: Identifier


class Chosen(Strict):
    type: Literal["function"]
    function: Named


class Asked(Strict):
    """What chats and completions have in common."""

    model: Identifier
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    temperature: Annotated[Finite, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Finite, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=CHOICES)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    logit_bias: Annotated[dict[Token, Annotated[Finite, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Pair | None = None
    metadata: Annotated[dict[Annotated[str, Field(max_length=64)], Pair], Field(max_length=16)] | None = None

    @property
    def most(self) -> int | None:
        """Tokens that each answer may have, where it was said."""
        return self.max_tokens

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are of a stream: set stream to true")
        return self


class ChatCreate(Asked):
    """The body of POST /v1/chat/completions. `messages` are as in training rows: text, and calls of tools."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1024)]
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None
    tools: Annotated[list[Tool], Field(min_length=1, max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Chosen | None = None

    @property
    def most(self) -> int | None:
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens say the same in two ways: keep one of them")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs go with logprobs: set it to true")
        if self.tool_choice not in (None, "none") and not self.tools:
            raise ValueError("tool_choice chooses among tools, and there are none")
        return self


class CompletionCreate(Asked):
    """The body of POST /v1/completions: texts, or their tokens."""

    prompt: (
        str
        | Annotated[list[Id], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=PROMPTS)]
        | Annotated[list[Annotated[list[Id], Field(min_length=1)]], Field(min_length=1, max_length=PROMPTS)]
    )
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt by itself."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        whole: list[Any] = self.prompt
        return [whole] if isinstance(whole[0], int) else whole


def sendable(asked: BaseModel) -> None:
    """Raises ApiError 400 for what is in no text (NUL, half a surrogate pair), and for numbers that JSON has not."""
    said = asked.model_dump(mode="python", exclude_none=True, by_alias=True)
    for name, value in said.items():
        if _has_no_text(value):
            message = f"Invalid value for '{name}': it holds NUL or half of a surrogate pair, which is not text."
            raise errors.invalid(message, name, "invalid_value")
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise errors.invalid(f"Invalid value for '{name}': it holds a number that JSON has not.", name) from None


def _has_no_text(value: Any) -> bool:
    rest = [value]
    while rest:
        part = rest.pop()
        if isinstance(part, str):
            if NO_TEXT.search(part):
                return True
        elif isinstance(part, Mapping):
            rest += (*part, *part.values())
        elif isinstance(part, list):
            rest += part
    return False
