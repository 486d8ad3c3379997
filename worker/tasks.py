"""Celery's entry to the worker: one doorbell is one slice. Knows the queue's errors, nothing of training."""

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery
from celery.app.amqp import AMQP
from sqlalchemy.exc import SQLAlchemyError

from db.queue import TASK, celery_app
from worker.slice import take
from worker.station import Station


class Doorbells(AMQP):  # type: ignore[misc]  # celery is untyped here
    """Consumes without acknowledgement. A doorbell may be lost: the sweep rings again long before a redelivery would.

    But an acknowledgement that fails, because the broker was lost while a slice ran, is never made up for: kombu counts
    the message as in hand for ever, and with a prefetch of one the worker is deaf (measured with Celery 5.7).
    """

    def TaskConsumer(self, *args: Any, **kwargs: Any) -> Any:
        return super().TaskConsumer(*args, no_ack=True, **kwargs)


log = structlog.get_logger("worker.tasks")


def listener(redis_url: str) -> Celery:
    """The Celery app of a process that consumes doorbells; to be made before the first one is rung."""
    app = celery_app(redis_url)
    app.amqp_cls = Doorbells
    return app


def bind(app: Celery, station: Station) -> Callable[[], None]:
    """Register the task that takes a slice at `station` and rings again while work is left; returns its body."""

    def slice_() -> None:
        if station.heartbeat.draining.is_set():
            return
        try:
            left = take(station)
        except SQLAlchemyError as error:  # the sweep rings again once the database is back
            log.error("slice ended early", error=str(error).partition("\n")[0])
            return
        if left:
            station.ring(station.model)

    app.task(name=TASK)(slice_)
    return slice_
