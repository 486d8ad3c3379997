"""The queue's gauges, read from PostgreSQL and the broker at each scrape. Knows no request."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session, sessionmaker

from api.errors import reachable
from db import queue, security
from db.overview import Overview, overview
from migrations import run as migrations


class Gauges(Collector):
    """Models that are configured show zeros where they have no rows. What the database does not answer is absent: all
    of it where it is away, the queue's where it has no tables yet or takes too long."""

    def __init__(self, sessions: sessionmaker[Session], models: list[str], redis_url: str) -> None:
        self.sessions, self.models, self.redis_url = sessions, models, redis_url

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        current: list[bool] = []
        found: list[Overview] = []

        def schema() -> None:
            with self.sessions.begin() as session:
                current.append(migrations.current(session.connection()) == migrations.head())

        def rows() -> None:
            with security.across(self.sessions) as session:
                found.append(overview(session, self.models))

        up = reachable(schema)
        yield _one("onward_database_up", "1 where PostgreSQL answered this scrape.", float(up))
        broker = reachable(lambda: queue.ping(self.redis_url))
        yield _one("onward_broker_up", "1 where the broker answered this scrape.", float(broker))
        for same in current:
            yield _one("onward_schema_current", "1 where the database is at this code's migration.", float(same))
        if up and reachable(rows):
            yield from families(found[0])


def families(now: Overview) -> Iterator[Metric]:
    """One family a figure."""
    yield _pairs("onward_jobs", "Jobs that have not ended.", now.jobs)
    yield _by_model("onward_oldest_queued_age_seconds", "How long the oldest job waits to begin.", now.oldest_queued)
    yield _by_model("onward_backlog_tokens", "Scored tokens that live jobs will cost.", now.backlog_tokens)
    yield _pairs("onward_workers", "Workers that have beaten of late.", now.workers)
    yield _by_model("onward_stale_workers", "Workers that fell silent without signing off.", now.stale_workers)
    yield _by_model("onward_active_tenants", "Tenants with queued or running jobs.", now.active_tenants)
    yield _by_model("onward_fairness_jain", "Jain's index of active tenants' tokens over their weight.", now.fairness)
    yield _one("onward_tenants_near_quota", "Tenants beyond nine tenths of their token quota.", now.near_quota)
    yield _one("onward_database_bytes", "Size of the database.", now.database_bytes)
    yield _one("onward_clock_skew_seconds", "The database's clock less this process's.", now.clock_skew)


def _one(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)


def _by_model(name: str, about: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=("model",))
    for model, value in sorted(values.items()):
        family.add_metric((model,), value)
    return family


def _pairs(name: str, about: str, values: Mapping[tuple[str, str], float]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=("model", "state"))
    for pair, value in sorted(values.items()):
        family.add_metric(pair, value)
    return family
