"""Celery's entry to the worker: one doorbell is one slice. Knows the queue's errors, nothing of training."""

from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery
from celery.app.amqp import AMQP
from celery.exceptions import WorkerShutdown
from opentelemetry.trace import SpanKind
from sqlalchemy.exc import SQLAlchemyError

from db.ids import new_id
from db.queue import TASK, TRACE, celery_app
from db.telemetry import traces
from worker import metrics
from worker.slices import loop
from worker.slices.context import Context


class Doorbells(AMQP):  # type: ignore[misc]  # celery is untyped here
    """Consumes without acknowledgement. A doorbell may be lost: the sweep rings again long before a redelivery would.

    But an acknowledgement that fails, because the broker was lost while a slice ran, is never made up for: kombu counts
    the message as in hand for ever, and with a prefetch of one the worker is deaf (measured with Celery 5.7).
    """

    def TaskConsumer(self, *args: Any, **kwargs: Any) -> Any:
        return super().TaskConsumer(*args, no_ack=True, **kwargs)


log = structlog.get_logger("worker.slices.tasks")


def listener(redis_url: str) -> Celery:
    """The Celery app of a process that consumes doorbells; to be made before the first one is rung."""
    app = celery_app(redis_url)
    app.amqp_cls = Doorbells
    return app


def bind(app: Celery, context: Context) -> Callable[[], None]:
    """Register the task that takes a slice in `context` and rings again while work is left; returns its body."""

    def answer(rung_in: str | None = None) -> None:
        if context.heartbeat.draining.is_set() or context.heartbeat.out is not None:
            return
        context.wake()
        name = new_id("slc_")
        with structlog.contextvars.bound_contextvars(slice=name):
            try:
                with traces.span("slice", rung_in, kind=SpanKind.CONSUMER, slice=name, model=context.model):
                    left = loop.run_slice(context)
            except SQLAlchemyError as error:  # the sweep rings again once the database is back
                metrics.slice_errors.labels(context.model).inc()
                log.error("slice ended early", error=str(error).partition("\n")[0])
                return
            if left:
                for bell in context.bells:
                    context.ring(bell)

    def entry(task: Any) -> None:
        with context.busy:
            answer((task.request.headers or {}).get(TRACE))
        if context.heartbeat.draining.is_set():
            raise WorkerShutdown(0)  # Celery itself would wait for up to two more seconds of messages

    app.task(name=TASK, bind=True, shared=False)(entry)  # of this app alone
    return answer
