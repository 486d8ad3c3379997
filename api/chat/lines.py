"""Connections to workers: one request tried on one worker after another until a first byte is there. Knows HTTP and
addresses, no tenant and no model.

A worker that refuses the connection, resets it, or neither sends a byte nor answers when asked whether it lives, is
left for the next one, which the client does not notice: nothing was sent to it yet.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from api.chat.dialled import Answer, Broken, Dial
from api.chat.routing import Offer
from api.settings import Settings

log = structlog.get_logger("api.chat.lines")
T = TypeVar("T")
SHUN_SECONDS: Final = 5.0  # that a worker which failed is asked last
EVENT_BYTES: Final = 4 << 20  # of one event or whole answer: more is no worker of ours
SLACK_SECONDS: Final = 5.0  # after its deadline a worker is taken for dead
ENGINES: Final = 2  # that may fail with one request: it may be what they fail of
BEATS: Final = ("engine_failed", "draining", "overloaded")  # codes of a stream that failed before it began


class Gone(Exception):
    """The worker failed in the middle of a request; the message is for the log. `frozen`: it does not even answer."""

    def __init__(self, message: str, frozen: bool = False) -> None:
        super().__init__(message)
        self.frozen = frozen


class Nobody(Exception):
    """No worker took the request. `overloaded`: one said that it has too much, until `retry_after` seconds from now.
    `feared`: as many engines failed with it as may, and no other is tried."""

    def __init__(self, overloaded: bool, retry_after: float, feared: bool = False) -> None:
        super().__init__("overloaded" if overloaded else "no worker")
        self.overloaded, self.retry_after, self.feared = overloaded, retry_after, feared


@dataclass(frozen=True)
class Ask:
    """A request as a worker takes it. `deadline` is in unix seconds, `tokens` what it may cost."""

    path: str
    body: bytes
    headers: dict[str, str]
    stream: bool
    deadline: float
    tokens: int


@dataclass
class Reply:
    """A worker's answer that has begun: the whole `body`, or of a stream its `events` (the data of each), the first of
    which is there. Must be closed."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    events: AsyncIterator[bytes] | None = None
    _response: Answer | None = field(default=None, repr=False)
    _done: Any = field(default=lambda: None, repr=False)

    async def close(self) -> None:
        """A stream that has not ended is cut: its worker sees it at once."""
        self._done()
        if self._response is not None:
            self._response.close()


class Lines:
    """The connections of one event loop, kept open. Those to a worker that failed are made anew. `retried` is told each
    time that a request is asked again, of the next worker."""

    def __init__(self, settings: Settings, retried: Callable[[], None] = lambda: None) -> None:
        self._settings, self._retried = settings, retried
        self._dial = Dial(settings.serve_connect_seconds)
        self._shunned: dict[str, float] = {}
        self.under_way: Counter[str] = Counter()  # tokens, by address

    @property
    def shunned(self) -> set[str]:
        now = time.monotonic()
        self._shunned = {url: until for url, until in self._shunned.items() if until > now}
        return set(self._shunned)

    async def begin(self, ask: Ask, offers: Sequence[Offer]) -> Reply:
        """The first answer of these workers, in order, once its first byte is there. Raises Nobody."""
        overloaded, after, todo = False, 1.0, list(offers)
        again = offers[:1]  # a kept connection may have been cut as it was used: who is first has a second try
        asked = failed = 0
        while todo:
            offer = todo.pop(0)
            if asked:
                self._retried()
            asked += 1
            try:
                reply = await self._ask(offer, ask)
            except Gone as error:
                log.warning("worker failed before it answered", worker=offer.worker, error=str(error))
                self._shunned[offer.url] = time.monotonic() + SHUN_SECONDS
                if not todo and again and not error.frozen:
                    todo, again = [*again], []
                continue
            if reply.status in (401, 403):
                log.error("a worker does not know our secret: is ONWARD_SERVE_SECRET the same?", worker=offer.worker)
            elif reply.status != 503:
                return reply
            failed += b'"engine_failed"' in reply.body
            if failed == ENGINES:
                raise Nobody(False, after, feared=True)
            overloaded = overloaded or b'"overloaded"' in reply.body
            after = max(after, _seconds(reply.headers.get("retry-after")))
        raise Nobody(overloaded, after)

    async def _ask(self, offer: Offer, ask: Ask) -> Reply:
        """Raises Gone."""
        self.under_way[offer.url] += ask.tokens
        counted, response = [offer.url], None

        def done() -> None:
            while counted:
                self.under_way[counted.pop()] -= ask.tokens
            self.under_way += Counter()  # without who has nothing to do

        try:
            asking = self._dial.ask("POST", f"{offer.url}{ask.path}", ask.headers, ask.body)
            response = await self._patient(asking, offer, ask)
            streams = response.headers.get("content-type", "").startswith("text/event-stream")
            if response.status == 200 and ask.stream and streams:
                return await self._streamed(response, offer, ask, done)
            body = await self._patient(_whole(response), offer, ask)
            done()
            return Reply(response.status, response.headers, body)
        except Broken as error:
            _end(response, done)
            raise Gone(repr(error)) from error
        except BaseException:
            _end(response, done)
            raise

    async def _streamed(self, response: Answer, offer: Offer, ask: Ask, done: Any) -> Reply:
        """Once its first event is there. One that says that the engine failed before it began is Gone."""
        events = events_of(response.pieces())
        first = await self._patient(anext(events, b""), offer, ask)
        if not first or (b'"error"' in first[:32] and any(code.encode() in first for code in BEATS)):
            raise Gone(f"its stream began with {first[:200]!r}")

        async def rest() -> AsyncIterator[bytes]:
            yield first
            while True:
                try:
                    event = await self._patient(anext(events, b""), offer, ask)
                except Broken as error:
                    raise Gone(repr(error)) from error
                if not event:
                    return
                yield event

        return Reply(200, response.headers, events=rest(), _response=response, _done=done)

    async def _patient(self, waited: Awaitable[T], offer: Offer, ask: Ask) -> T:
        """What is waited for. Each time that nothing came for `serve_patience_seconds` the worker is asked whether it
        lives. Raises Gone."""
        task = asyncio.ensure_future(waited)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=self._settings.serve_patience_seconds)
                if done:
                    return task.result()
                if time.time() > ask.deadline + SLACK_SECONDS:
                    raise Gone("nothing came until its deadline", frozen=True)
                if not await self._lives(offer, ask.headers["authorization"]):
                    raise Gone("it sends nothing and does not answer", frozen=True)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _lives(self, offer: Offer, authorization: str) -> bool:
        connect, wait = self._settings.serve_connect_seconds, self._settings.serve_patience_seconds
        try:
            async with asyncio.timeout(connect + wait):
                answer = await self._dial.ask("GET", f"{offer.url}/load", {"authorization": authorization})
            async with asyncio.timeout(wait):
                await _whole(answer)
        except (Broken, Gone, TimeoutError):
            return False
        return answer.status < 500


def _end(response: Answer | None, done: Any) -> None:
    done()
    if response is not None:
        response.close()


async def _whole(response: Answer) -> bytes:
    pieces, size = [], 0
    try:
        async for piece in response.pieces():
            size += len(piece)
            if size > EVENT_BYTES:
                raise Gone("its answer does not end")
            pieces.append(piece)
    finally:
        response.close()
    return b"".join(pieces)


async def events_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of server-sent events; comments and other fields are passed over. Raises Gone."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece.replace(b"\r\n", b"\n")).split(b"\n\n")
        for event in whole:
            lines = [line[5:].lstrip(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
            if lines:
                yield b"\n".join(lines)
        if len(rest) > EVENT_BYTES:
            raise Gone("an event of its stream does not end")


def _seconds(said: str | None) -> float:
    try:
        return min(float(said or 0), 60.0)
    except ValueError:
        return 0.0
