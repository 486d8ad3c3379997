"""A worker's answer on its way to the client: our id, the exact name of who spoke, and what it cost. Knows no HTTP
of workers.

A stream that a worker does not end ends here with an error and without `[DONE]`: a client takes one that merely ends
for a finished answer.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.chat.lines import Gone, Reply

log = structlog.get_logger("api.chat.stream")
DONE: Final = b"[DONE]"
END_SECONDS: Final = 0.5
OUTCOMES: Final = {"deadline_exceeded": "late", "draining": "drained"}  # of a chat, by the error's code
BROKEN: Final = {
    "message": "The worker that answered failed; this answer is not complete. Ask again.",
    "type": "server_error",
    "param": None,
    "code": "worker_failed",
}


@dataclass
class Voice:
    """Whose words they are: the request's id, the exact `name` of the model, what it is called by the engine (`wears`),
    and whether the client `wants_usage`. `usage` is the engine's last word on it; `spoken` counts what came before.
    `outcome` is for who counts."""

    request: str
    name: str
    wears: str
    wants_usage: bool = True
    usage: dict[str, Any] | None = None
    spoken: int = 0
    failed: bool = field(default=False)
    outcome: str = "answered"

    def rewritten(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer, or a part of a stream's, as the client sees it."""
        answer["id"], answer["model"] = self.request, self.name
        if isinstance(answer.get("usage"), dict):
            self.usage = answer["usage"]
        return answer

    def heard(self, event: bytes) -> bytes | None:
        """An event as the client is sent it; None for one that it did not ask for. Raises Gone for what is no event."""
        try:
            part = json.loads(event)
        except ValueError as error:
            raise Gone(f"an event is no JSON: {event[:100]!r}") from error
        if not isinstance(part, dict):
            raise Gone(f"an event is no object: {event[:100]!r}")
        if part.get("error") is not None:
            return _event({"error": self.fail(part["error"])})
        part = self.rewritten(part)
        self.spoken += len(part.get("choices") or ())
        if not self.wants_usage and part.pop("usage", None) is not None and not part.get("choices"):
            return None
        return _event(part)

    def fail(self, said: Any) -> dict[str, Any]:
        """A worker's error, which is the end, as `error` has it."""
        found = self.error(said)
        theirs = "failed" if found["type"] == "server_error" else "refused"
        self.failed, self.outcome = True, OUTCOMES.get(found["code"], theirs)
        return found

    def error(self, said: Any) -> dict[str, Any]:
        """A worker's error in our shape, without the engine's name for what it wore."""
        about = said if isinstance(said, dict) else {}
        message = str(about.get("message") or BROKEN["message"]).replace(self.wears, self.name)[:1000]
        found = {key: about.get(key) for key in ("type", "param", "code")}
        kind = {"type": found["type"] if isinstance(found["type"], str) else "server_error"}
        texts = {key: value if isinstance(value, str) else None for key, value in found.items()}
        return {"message": message, **texts, **kind}

    def cost(self, prompt: int) -> tuple[int, int, int]:
        """Tokens of the prompt, of those the cached ones, and of the answers. Of a stream that was left before its end,
        those that were sent: a part is at least one."""
        if self.usage is None:
            return (prompt, 0, self.spoken) if self.spoken else (0, 0, 0)
        cached = (self.usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        return _count(self.usage.get("prompt_tokens")), _count(cached), _count(self.usage.get("completion_tokens"))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _event(part: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def passed_on(reply: Reply, voice: Voice) -> AsyncIterator[bytes]:
    """What the client is sent. Always ends with `[DONE]` or an error."""
    assert reply.events is not None
    try:
        async for event in reply.events:
            if event == DONE:
                yield b"data: [DONE]\n\n"
                await _end(reply.events)
                return
            if (said := voice.heard(event)) is not None:
                yield said
            if voice.failed:
                return
    except Gone as error:
        log.warning("worker failed in a stream", error=str(error))
    yield _event({"error": voice.fail(BROKEN)})


async def _end(events: AsyncIterator[bytes]) -> None:
    """The end of the body is read too, where it is there: its connection can then be kept."""
    with suppress(Gone, TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await anext(events, b"")


class Stream(Response):
    """An answer of server-sent events, which is left as soon as the client is gone. `finish` is awaited at its
    end, whatever that is."""

    def __init__(
        self, pieces: AsyncIterator[bytes], finish: Callable[[], Awaitable[None]], headers: dict[str, str]
    ) -> None:
        self._pieces, self._finish = pieces, finish
        self.status_code, self.media_type, self.background = 200, "text/event-stream", None
        self.init_headers({"cache-control": "no-cache"} | headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        speaking = asyncio.ensure_future(self._speak(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({speaking, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                speaking.result()
        finally:
            for task in (speaking, leaving):
                task.cancel()
            await asyncio.gather(speaking, leaving, return_exceptions=True)
            await self._finish()

    async def _speak(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
