"""What every request is given: an id, a place in a trace and one line in the log. Knows no resource."""

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable

import structlog
from opentelemetry.trace import SpanKind
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from db import audit
from db.telemetry import traces

NOBODY = "nobody"  # acts, until a key is known
HEADER = "x-request-id"  # the openai client shows it as `_request_id`
GIVEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
QUIET = frozenset(("/healthz", "/readyz", "/metrics"))  # asked every few seconds: a line only at level DEBUG

log = structlog.get_logger("api.middleware")


class AtOnce:
    """ASGI middleware that answers 503 beyond `most` requests under way, but for the probes. What a request adds to
    the scope's `leaving` is called when it ends."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most, self.under_way = app, most, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self.app(scope, receive, send)
            return
        if self.under_way >= self.most:
            said = {"message": "Too many requests are under way: try again.", "type": "server_error"}
            body = {"error": said | {"param": None, "code": "unavailable"}}
            await JSONResponse(body, 503, {"retry-after": "1"})(scope, receive, send)
            return
        self.under_way += 1
        leaving: list[Callable[[], None]] = scope.setdefault("leaving", [])
        try:
            await self.app(scope, receive, send)
        finally:
            self.under_way -= 1
            for leave in leaving:
                leave()


class Requests:
    """ASGI middleware, outside of all others, so that an unforeseen error has an id in its answer too.

    A caller's own `X-Request-ID` is kept where it is harmless, and its `traceparent` is the parent of the request's
    span. Bound to the context: `request`; in the scope, once the key was found to be good: `tenant`, and `rates`, the
    headers that say what is left to it."""

    def __init__(self, app: ASGIApp, draining: threading.Event) -> None:
        self.app, self.draining = app, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(HEADER, "")
        request_id = given if GIVEN.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        status, began = 500, time.perf_counter()

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer[HEADER] = request_id
                for name, value in scope.get("rates", {}).items():
                    answer[name] = value
                if self.draining.is_set():
                    answer["connection"] = "close"
            await send(message)

        with (
            structlog.contextvars.bound_contextvars(request=request_id),
            audit.acting(NOBODY, request_id),
            traces.span(
                f"{scope['method']} request", traces.incoming(headers) or "", kind=SpanKind.SERVER, request=request_id
            ) as span,
        ):
            try:
                await self.app(scope, receive, named)
            finally:
                route = getattr(scope.get("route"), "path", "unknown")
                span.update_name(f"{scope['method']} {route}")
                span.set_attributes(
                    {"http.request.method": scope["method"], "http.route": route, "http.response.status_code": status}
                )
                level = logging.DEBUG if route in QUIET else logging.INFO
                about = {"tenant": scope["tenant"]} if "tenant" in scope else {}
                seconds = round(time.perf_counter() - began, 4)
                log.log(level, "answered", method=scope["method"], route=route, status=status, seconds=seconds, **about)
