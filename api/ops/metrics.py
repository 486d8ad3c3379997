"""What Prometheus reads from the API: HTTP by route template, doorbells, and the queue as PostgreSQL has it."""

import time
from collections.abc import Callable
from contextlib import ExitStack

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.ops.gauges import Gauges
from api.settings import Settings
from db.telemetry.version import VERSION

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which nobody asks for

METHODS = frozenset(("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"))
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OUTCOMES = ("answered", "refused", "late", "drained", "failed", "overloaded", "no_worker")  # of a chat


class HttpCounts:
    """Labels are bounded: the route's template, never the path."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "onward_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.seconds = Histogram(
            "onward_http_request_seconds",
            "From a request's first byte to its answer's last.",
            ("method", "route"),
            registry=registry,
            buckets=BUCKETS,
        )


class ChatCounts:
    """Chats that went to workers, by what came of them: `answered`, or left by the client; `refused` by a worker, for
    what was sent; `late`: beyond the deadline; `drained`: cut by a worker that ended; `failed`: by one that died, or
    with an error of its own; `overloaded` or `no_worker`: nobody took them."""

    def __init__(self, registry: CollectorRegistry, models: list[str]) -> None:
        about = "Chats asked of workers, by what came of them."
        self._chats = Counter("onward_chats", about, ("model", "outcome"), registry=registry)
        again = "Times that a chat was asked again, of the next worker, before its first byte."
        self._retries = Counter("onward_chat_retries", again, registry=registry)
        for model in models:
            for outcome in OUTCOMES:
                self._chats.labels(model, outcome)

    def ended(self, model: str, outcome: str) -> None:
        self._chats.labels(model, outcome).inc()

    def retried(self) -> None:
        self._retries.inc()


class HttpMetrics:
    """ASGI middleware that counts every answer."""

    def __init__(self, app: ASGIApp, counts: HttpCounts) -> None:
        self.app, self.counts = app, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        def count() -> None:
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", "unknown")
            self.counts.requests.labels(method, route, str(status)).inc()
            self.counts.seconds.labels(method, route).observe(time.perf_counter() - began)

        with ExitStack() as last:
            last.callback(count)
            await self.app(scope, receive, watched)


def registry(factory: sessionmaker[Session], settings: Settings) -> tuple[CollectorRegistry, HttpCounts]:
    """A registry of this app's own: the process, the build, the queue's gauges, and what the middleware counts in."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    build = Gauge("onward_build_info", "1; the labels say what runs.", ("component", "version"), registry=made)
    build.labels("api", VERSION).set(1)
    made.register(Gauges(factory, sorted(settings.models), settings.redis_url))
    return made, HttpCounts(made)


def counts(registry: CollectorRegistry, waiting: Callable[[], float]) -> None:
    """How many requests wait for their tokens to be counted."""
    gauge = Gauge("onward_counts_waiting", "Requests that wait for token counts.", registry=registry)
    gauge.set_function(waiting)


def unwritten(registry: CollectorRegistry, requests: Callable[[], float], seconds: Callable[[], float]) -> None:
    """How many chats' tokens wait to be written, and how long the oldest."""
    of = Gauge("onward_served_unwritten", "Chats whose tokens wait for the database.", registry=registry)
    of.set_function(requests)
    age = Gauge("onward_served_unwritten_seconds", "How long the oldest of them waits.", registry=registry)
    age.set_function(seconds)


def doorbells(registry: CollectorRegistry, models: list[str]) -> Callable[[str, bool], None]:
    """What counts each doorbell, rung or lost."""
    counter = Counter("onward_doorbells", "Doorbells, by what became of them.", ("model", "outcome"), registry=registry)
    for model in models:
        for outcome in ("rung", "lost"):
            counter.labels(model, outcome)
    return lambda model, rung: counter.labels(model, "rung" if rung else "lost").inc()
