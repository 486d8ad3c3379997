"""The three shapes of a training row, as values. Knows no JSON: `db/contract/rows/building.py` makes them of it."""

from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["chat", "completion", "choice"]
FORMATS: tuple[Format, ...] = ("chat", "completion", "choice")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn, of role system, user, assistant or tool. `scored` is true for an assistant turn, unless its `weight`
    was 0.

    `calls` are an assistant's tool calls as chat templates take them: {"id"?, "type": "function", "function": {"name",
    "arguments": object}}. `answers` is the id of the call that a tool turn answers.
    """

    role: str
    content: str
    scored: bool
    name: str | None = None
    calls: tuple[dict[str, Any], ...] = ()
    answers: str | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """{"messages": [...], "tools"?}: the scored assistant turns are learned. `tools` are {"type": "function",
    "function": {"name", ...}}."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()


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
