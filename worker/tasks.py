"""Celery's entry to the worker: one doorbell is one slice. Knows the queue's errors, nothing of training."""

from collections.abc import Callable

import structlog
from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from db.queue import TASK
from worker.slice import take
from worker.station import Station

log = structlog.get_logger("worker.tasks")


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
