"""The worker's one private port: two of OpenAI's routes and its load, for an API that shows the secret. Answers by
events are passed on as they come; one that cannot be finished ends with an error event and without `[DONE]`."""

import asyncio
import json
import math
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, Protocol

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from worker import metrics
from worker.serving import bodies, errors
from worker.serving.asks import Ask
from worker.types import Wearable

log = structlog.get_logger("worker.serving.http")
BODY: Final = 8 << 20  # bytes of a request
BODY_SECONDS: Final = 30.0
BASE: Final = "base"  # the model's own name for itself, in requests
EVENTS: Final = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
GRACE: Final = 5.0  # seconds for an answer that was told to end, to say so
Answer = dict[str, Any] | AsyncGenerator[str, None]
Answers = Callable[[Ask, dict[str, Any]], Awaitable[Answer]]


class House(Protocol):
    """What the routes stand on."""

    draining: bool
    model: str

    @property
    def load(self) -> dict[str, Any]: ...
    async def chat(self, ask: Ask, said: dict[str, Any]) -> Answer: ...
    async def completion(self, ask: Ask, said: dict[str, Any]) -> Answer: ...
    async def wearable(self, name: str, salt: str) -> Wearable: ...
    def end(self, ask: Ask, reason: Any, error: errors.Refused | None = None) -> None: ...


def application(house: House, secret: str) -> Starlette:
    """The routes; whoever does not show `secret` gets a 401 and nothing read."""
    door = Door(house, secret)
    routes = [
        Route("/v1/chat/completions", Asking(door, house.chat), methods=["POST"]),
        Route("/v1/completions", Asking(door, house.completion), methods=["POST"]),
        Route("/load", door.load, methods=["GET"]),
    ]
    return Starlette(routes=routes)


class Door:
    """Who may ask, and what of a request is not its body."""

    def __init__(self, house: House, secret: str) -> None:
        self.house = house
        self._secret = f"Bearer {secret}".encode()

    def check(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not secrets.compare_digest(given, self._secret):
            raise errors.Refused(401, "invalid_api_key", "This port answers its API only.")

    async def load(self, request: Request) -> Response:
        try:
            self.check(request)
        except errors.Refused as error:
            return self.refuse(error)
        return JSONResponse(self.house.load)

    def refuse(self, error: BaseException) -> JSONResponse:
        """The answer to a request that gets none."""
        of = errors.refused(error)
        metrics.serve_refusals.labels(self.house.model, of.code).inc()
        return JSONResponse(of.body, of.status, headers=of.headers)

    async def asked(self, request: Request) -> tuple[Ask, dict[str, Any]]:
        """The head and the body. Raises Refused."""
        self.check(request)
        if self.house.draining:
            raise errors.draining()
        ask = _headed(request)
        return ask, bodies.parsed(await _whole(request))


class Asking:
    """A route whose answer ends when its client is gone, when its time is over, or when its reader does not read."""

    def __init__(self, door: Door, answers: Answers) -> None:
        self._door, self._answers = door, answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            ask, said = await self._door.asked(request)
        except Exception as error:
            await self._door.refuse(error)(scope, receive, send)
            return
        sent = Sent(send)
        work = asyncio.create_task(self._answer(ask, said, scope, receive, sent))
        gone = asyncio.create_task(_disconnected(receive))
        ask.cut = work.cancel
        try:
            await self._watch(ask, work, gone)
            if not work.done():
                work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            if not gone.done() and not sent.begun:  # its time was over before it began
                await self._door.refuse(errors.expired())(scope, receive, send)
        finally:
            for task in (work, gone):
                task.cancel()
            self._door.house.end(ask, "client")

    async def _watch(self, ask: Ask, work: asyncio.Task[None], gone: asyncio.Task[None]) -> None:
        """Returns when the answer is given, its client gone, or its time over and that said or not to be said."""
        left = None if ask.deadline is None else max(ask.deadline - time.time(), 0.0)
        done, _ = await asyncio.wait({work, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            self._door.house.end(ask, "deadline", errors.expired())
            if ask.streams:
                await asyncio.wait({work, gone}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)

    async def _answer(self, ask: Ask, said: dict[str, Any], scope: Scope, receive: Receive, send: "Sent") -> None:
        try:
            ask.wears = await self._worn(said, ask.salt)
            answer = await self._answers(ask, said)
        except Exception as error:
            await self._door.refuse(error)(scope, receive, send)
            return
        if isinstance(answer, dict):
            await JSONResponse(answer)(scope, receive, send)
        else:
            await self._stream(answer, send)

    async def _stream(self, events: AsyncGenerator[str, None], send: "Sent") -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(EVENTS)})
        try:
            async for event in events:
                await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        except Exception as error:
            of = errors.refused(error)
            metrics.serve_refusals.labels(self._door.house.model, of.code).inc()
            last = f"data: {json.dumps(of.body)}\n\n"
            await send({"type": "http.response.body", "body": last.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _worn(self, said: dict[str, Any], salt: str) -> Wearable | None:
        name = said.get("model")
        if not isinstance(name, str):
            raise errors.invalid("model is missing.", "model")
        return None if name == BASE else await self._door.house.wearable(name, salt)


class Sent:
    """`send`, and whether anything was."""

    def __init__(self, send: Send) -> None:
        self._send, self.begun = send, False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


def _headed(request: Request) -> Ask:
    """What the API says of a request. Raises Refused where it says it wrongly or not at all."""
    head = request.headers
    name, salt = head.get("x-onward-request", ""), head.get("x-onward-salt", "")
    if not (0 < len(name) <= 128 and 0 < len(salt) <= 256):
        raise errors.invalid("X-Onward-Request and X-Onward-Salt are to be given.")
    try:
        weight = float(head.get("x-onward-share", "1"))
        deadline = float(head["x-onward-deadline"]) if "x-onward-deadline" in head else None
    except ValueError:
        raise errors.invalid("X-Onward-Share and X-Onward-Deadline are numbers.") from None
    if not (math.isfinite(weight) and weight > 0 and (deadline is None or math.isfinite(deadline))):
        raise errors.invalid("X-Onward-Share is more than 0, X-Onward-Deadline a time.")
    return Ask(name, salt, weight, deadline)


async def _whole(request: Request) -> bytes:
    """The body, under a limit in size and in time."""
    pieces, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size > BODY:
                    raise errors.Refused(413, "request_too_large", f"The body exceeds the limit of {BODY} bytes.")
                pieces.append(piece)
    except TimeoutError:
        raise errors.Refused(408, "request_timeout", "The body came too slowly.") from None
    return b"".join(pieces)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
