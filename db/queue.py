"""The doorbell: one Celery task over Redis that wakes workers and carries nothing. The row is the truth.

A message may be lost, doubled or late without harm: the sweep rings again (`db.sweep`). Knows no table.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import parse_qs, urlsplit

import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from opentelemetry.trace import SpanKind
from sqlalchemy import event
from sqlalchemy.orm import Session

from db.telemetry import traces

TASK = "onward.slice"
QUEUE_PREFIX = "onward."
AUTOGRAD = "#autograd"  # no model's name has a number sign: it begins a URL's fragment
TRACE = "onward_traceparent"  # the doorbell's header
SOCKET_SECONDS = 0.4  # a dead broker may hold a request for so long, no longer
PING_SECONDS = 0.5

log = structlog.get_logger("db.queue")


def bell(model: str, autograd: bool = False) -> str:
    """What is rung for jobs of `model`: those that need derivatives have a doorbell of their own, which no worker of
    forward passes answers and takes from one that has them."""
    return f"{model}{AUTOGRAD}" if autograd else model


def bells(model: str, kinds: Iterable[bool]) -> tuple[str, ...]:
    """Those of these kinds of jobs."""
    return tuple(bell(model, autograd) for autograd in kinds)


def queue_name(bell: str) -> str:
    """The queue of the workers that answer `bell`."""
    return QUEUE_PREFIX + bell


def broker_url(redis_url: str) -> str:
    """kombu's spelling of a redis-py URL: `unix:///a.sock?db=1` becomes `redis+socket:///a.sock?virtual_host=1`."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    number = parse_qs(parts.query).get("db", ["0"])[0]
    password = f":{parts.password}@" if parts.password else ""
    return f"redis+socket://{password}{parts.path}?virtual_host={number}"


@lru_cache
def celery_app(redis_url: str) -> Celery:
    """The Celery app both ends share: JSON only, no results, acknowledged late, one message at a time."""
    app = Celery("onward", broker=broker_url(redis_url), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        task_default_queue=QUEUE_PREFIX + "default",
        task_create_missing_queues=True,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=SOCKET_SECONDS,
        # The sweep rings again: publishing must not wait for a broker that is away.
        task_publish_retry=False,
        broker_transport_options={
            "visibility_timeout": 300,  # slices are seconds: an unacknowledged doorbell is a dead worker's
            "socket_connect_timeout": SOCKET_SECONDS,
            "socket_timeout": SOCKET_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "max_retries": 0,
        },
    )
    return app


Ring = Callable[[str], None]
Heard = Callable[[str, bool], None]


def ringer(app: Celery, heard: Heard | None = None) -> Ring:
    """What wakes a worker that answers a `bell`, unless a doorbell lies there that nobody has taken: who takes it reads
    the rows after that, and finds what this one would tell. A broker that does not answer is logged, never raised;
    `heard` is told of each try, by the model. The doorbell carries the trace it was rung in."""

    def ring(bell: str) -> None:
        name, model = queue_name(bell), bell.removesuffix(AUTOGRAD)
        with traces.span("ring", kind=SpanKind.PRODUCER, model=model):
            try:
                with app.producer_or_acquire() as producer:
                    if not producer.channel.client.llen(name):
                        headers = {TRACE: traces.traceparent()}
                        app.send_task(TASK, queue=name, retry=False, headers=headers, producer=producer)
            except (OperationalError, OSError, redis.RedisError) as error:
                log.warning("doorbell not rung", model=model, error=str(error))
                rung = False
            else:
                rung = True
        if heard is not None:
            heard(model, rung)

    return ring


def ping(redis_url: str) -> None:
    """Raises redis.RedisError or OSError where the broker does not answer at once."""
    wait = {"socket_timeout": PING_SECONDS, "socket_connect_timeout": PING_SECONDS}
    with redis.Redis.from_url(redis_url, **wait) as client:
        client.ping()


def ring_after_commit(session: Session, bell: str, ring: Ring) -> None:
    """Rings `bell` once this session's transaction has committed, and not if it rolls back."""

    def committed(_: Session) -> None:
        event.remove(session, "after_rollback", rolled_back)
        ring(bell)

    def rolled_back(_: Session) -> None:
        event.remove(session, "after_commit", committed)

    event.listen(session, "after_commit", committed, once=True)
    event.listen(session, "after_rollback", rolled_back, once=True)
