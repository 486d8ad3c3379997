"""What Prometheus reads from the API: HTTP by route template, and the queue as PostgreSQL has it at the scrape."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors
from db.models import Job

METHODS = frozenset(("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"))
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LIVE = ("queued", "running", "paused")


class HttpMetrics:
    """ASGI middleware that counts every answer. Labels are bounded: the route's template, never the path."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
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
            self.requests.labels(method, route, str(status)).inc()
            self.seconds.labels(method, route).observe(time.perf_counter() - began)

        with ExitStack() as last:
            last.callback(count)
            await self.app(scope, receive, watched)


class QueueMetrics(Collector):
    """Jobs by model and state and the age of the oldest queued one; models without live jobs show zeros."""

    def __init__(self, sessions: sessionmaker[Session], models: list[str]) -> None:
        self.sessions, self.models = sessions, models

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("onward_jobs", "Jobs that have not ended.", labels=("model", "state"))
        age = GaugeMetricFamily(
            "onward_oldest_queued_age_seconds", "How long the oldest queued job waits.", labels=("model",)
        )
        up = GaugeMetricFamily("onward_database_up", "1 where PostgreSQL answered this scrape.")
        counts: dict[tuple[str, str], int] = {(model, state): 0 for model in self.models for state in LIVE}
        ages: dict[str, float] = dict.fromkeys(self.models, 0.0)

        def read() -> None:
            waited = func.extract("epoch", func.clock_timestamp() - func.min(Job.created_at))
            wanted = select(Job.model, Job.state, func.count(), waited)
            with self.sessions.begin() as session:
                for model, state, count, seconds in session.execute(
                    wanted.where(Job.state.in_(LIVE)).group_by(Job.model, Job.state)
                ):
                    counts[model, state] = count
                    if state == "queued":
                        ages[model] = float(seconds)

        answered = errors.reachable(read)
        up.add_metric((), float(answered))
        yield up
        if answered:
            for (model, state), count in sorted(counts.items()):
                jobs.add_metric((model, state), count)
            for model, seconds in sorted(ages.items()):
                age.add_metric((model,), seconds)
            yield jobs
            yield age
