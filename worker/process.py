"""The life of a worker process: registration, engine, heartbeat, Celery, an orderly end. Knows no step of training."""

import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import structlog
from celery import Celery, signals
from celery.exceptions import WorkerShutdown
from celery.platforms import SecurityWarning
from celery.worker import state
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from db import queue, security, workers
from db.contract.tokens import base_model
from db.contract.tokens.base_model import Base
from db.session import make_engine, sessions
from db.store.opening import Stores, carrying
from db.worker import leases
from worker import health, metrics
from worker.adapters import disk
from worker.health import Progress
from worker.scoring.metered import MeteredScorer
from worker.scoring.open import open_scorer
from worker.settings import WorkerSettings
from worker.slices import tasks
from worker.slices.context import Context
from worker.slices.ending import Out
from worker.slices.heartbeat import Heartbeat
from worker.slices.receipts import Receipts, key_of
from worker.slices.restoring import Restorer
from worker.slices.store_keeper import StoreKeeper

if TYPE_CHECKING:  # a worker without an engine does not load its libraries
    from worker.serving.open import Serving

log = structlog.get_logger("worker.process")
Opens = Callable[[WorkerSettings, Base], tuple[MeteredScorer, dict[str, Any]]]


class NoDatabase(Exception):
    """It is away, does not let this worker in, or has no tables yet: one sentence. Another start may find it there."""


def run(settings: WorkerSettings, opens: Opens = open_scorer) -> int:
    """Serve until told to stop; the exit status. Raises what keeps a worker from starting."""
    base, secret = base_model.load(settings.model, settings), key_of(settings)
    stores = Stores(settings)
    factory = carrying(sessions(settings.database_url), stores)
    worker_id = _signed_on(factory, base.name, settings)
    app = tasks.listener(settings.redis_url)
    ring = queue.ringer(app, _heard)
    beats = Heartbeat(sessionmaker(make_engine(settings.database_url, pool_size=1)), settings, worker_id, ring)
    keeper = StoreKeeper(factory, stores, settings, beats)
    keeper.start()
    serving: Serving | None = None
    beats.start()  # an engine takes its time to start, and a worker that starts is one that lives
    try:
        progress = _begun(settings, factory, base.name)
        log.info("starting", worker=worker_id, model=base.name, scorer=settings.scorer)
        signal.signal(signal.SIGTERM, _leave)  # a worker that still loads ends in order too
        started = time.perf_counter()
        scorer, about = opens(settings, base)
        _watch(scorer, beats, progress)
        serving = _serving(settings, base, scorer, factory, beats)
        receipts = _receipts(base, about, secret)
        restorer = Restorer(sessionmaker(make_engine(settings.database_url, pool_size=1)), settings, base, worker_id)
        restorer.start()
        context = Context(
            settings, base, scorer, factory, worker_id, beats, ring, _give_up, progress, stores, receipts,
            wake=restorer.wake,
        )  # fmt: skip
        metrics.engine_start_seconds.labels(base.name).set(time.perf_counter() - started)
        _ready(context, about)
        beats.look_at_disk()  # out of service is what a worker that was ready can leave and come back to
        log.info("ready", worker=worker_id, capacity=scorer.capacity, **about)
        return _serve(app, context, serving)
    finally:
        if serving is not None:
            serving.drain(settings.serve_drain_seconds)
        keeper.stop()
        beats.stop()
        _sign_off(factory, worker_id, beats.out)


def _watch(scorer: MeteredScorer, beats: Heartbeat, progress: Progress) -> None:
    """What the side threads ask of a scorer."""
    beats.rate = lambda: scorer.rate
    progress.stood, progress.serving_since = lambda: scorer.stood, lambda: scorer.serving_since
    progress.out = lambda: beats.out.reason if beats.out else None


def _ready(context: Context, about: dict[str, Any]) -> None:
    with context.factory.begin() as session:
        serving, capacity = context.heartbeat.serving(), context.scorer.capacity
        workers.beat(session, context.worker_id, state="ready", capacity=capacity, about=about, serving=serving)
    metrics.engine_ready.labels(context.model).set(1)
    metrics.say_build(about)
    context.progress.ready.set()


def _signed_on(factory: sessionmaker[Session], model: str, settings: WorkerSettings) -> str:
    """The id of this worker's row. Raises NoDatabase."""
    try:
        security.warn_unbound(factory)
        with factory.begin() as session:
            host, pid = socket.gethostname(), os.getpid()
            return workers.register(session, model=model, host=host, pid=pid, takes=settings.takes)
    except (OperationalError, ProgrammingError) as error:  # before the migration there are no roles, or no tables
        said = str(error.orig).split("\n", 1)[0]
        raise NoDatabase(f"the database is away, or `onward migrate` has not run: {said}") from error


def _begun(settings: WorkerSettings, factory: sessionmaker[Session], model: str) -> Progress:
    progress = _watched(settings, model)
    _reap(settings, factory)
    return progress


def _receipts(base: Base, about: dict[str, Any], secret: str | None) -> Receipts:
    receipts = Receipts({key: said for key, said in about.items() if key != "training"}, secret)  # a time, no version
    receipts.prepare(base.path)
    return receipts


def _watched(settings: WorkerSettings, model: str) -> Progress:
    """Every series starts at 0, and the outside may ask how the process fares."""
    progress = Progress(settings.stuck_seconds)
    metrics.zero(model)
    metrics.cohort_limit.labels(model).set(settings.cohort)
    metrics.serve_queue_limit_tokens.labels(model).set(settings.serve_queue_tokens)
    metrics.serve_places.labels(model).set(settings.serve_slots)
    metrics.watch_disk(settings.home)
    if settings.worker_metrics_port:
        health.serve(settings.worker_metrics_port, progress)
    return progress


def _reap(settings: WorkerSettings, factory: sessionmaker[Session]) -> None:
    """What a killed worker was writing goes, except where a lease says that its writer lives."""

    def unheld(job_ids: Collection[str]) -> Collection[str]:
        with security.across(factory) as session:
            return leases.unheld(session, job_ids)

    count = disk.reap(settings.home, unheld)
    if count:
        log.info("reaped what a worker left", count=count)


def _sign_off(factory: sessionmaker[Session], worker_id: str, out: Out | None) -> None:
    """The engine goes with the process: taking it apart in order takes longer than a drain should."""
    try:
        with factory.begin() as session:
            workers.leave(session, worker_id, f"{out.reason}: {out.message}" if out else None)
    except SQLAlchemyError:
        log.warning("could not sign off", worker=worker_id)
    log.info("ended", worker=worker_id)


def _leave(*_: Any) -> None:
    """While the engine loads nothing is in hand, and it ends here; or, where the exception is lost (Python drops one
    that is raised in a weak reference's callback, as imports have them), as soon as Celery starts."""
    _stop_soon()
    raise SystemExit(0)


def _stop_soon(*_: Any) -> None:
    """An exception out of a signal's handler can leave the interpreter's import lock held, and Celery's start imports
    in two threads: until it listens, it is only told."""
    state.should_stop = 0


def _heard(model: str, rung: bool) -> None:
    metrics.doorbells.labels(model, "rung" if rung else "lost").inc()


def _serving(
    settings: WorkerSettings, base: Base, scorer: MeteredScorer, factory: sessionmaker[Session], beats: Heartbeat
) -> "Serving | None":
    """The engine answers chats too, from now on, where it is to; what ends it ends the process."""
    if settings.serve_secret is None or settings.scorer != "vllm":
        return None
    from worker.serving.open import open_serving

    def ended(error: BaseException) -> None:
        beats.leave_service(Out("engine", f"{type(error).__name__}: {error}"))
        _give_up()

    serving = open_serving(settings, base, scorer, factory, ended)
    if serving is not None:
        beats.serving, beats.deleted = (lambda: serving.offer), serving.forget
        serving.start()
    return serving


def _serve(app: Celery, context: Context, serving: "Serving | None" = None) -> int:
    """Celery's worker, in this thread: solo pool, one message at a time, until SIGTERM or SIGINT."""
    if serving is not None:
        context.committed = serving.committed
    signal.signal(signal.SIGTERM, _stop_soon)  # until Celery has its own
    tasks.bind(app, context)
    listening = threading.Event()

    # Celery waits for the task to end; the flag makes that the next step. An idle worker ends at once: this runs in the
    # main thread, in the signal's handler. The receiver must outlive this call.
    def drain(**_: Any) -> None:
        context.heartbeat.draining.set()
        context.progress.draining.set()
        if serving is not None:
            serving.refuse_more()
        if listening.is_set() and not context.busy.locked():
            raise WorkerShutdown(0)

    signals.worker_ready.connect(lambda **_: listening.set(), weak=False)
    signals.worker_shutting_down.connect(drain, weak=False)
    signals.setup_logging.connect(_keep_logging, weak=False)
    for bell in context.bells:  # what waited for a worker
        threading.Thread(target=context.ring, args=(bell,), daemon=True).start()
    warnings.filterwarnings("ignore", category=SecurityWarning)  # root in a container: messages are JSON, never pickle
    celery_worker = app.Worker(
        pool_cls="solo",
        concurrency=1,
        queues=[queue.queue_name(bell) for bell in context.bells],
        hostname=f"{context.worker_id}@{socket.gethostname()}",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        use_eventloop=False,  # the blocking loop raises when the broker is lost, then connects and subscribes anew
        loglevel="WARNING",
        quiet=True,  # no banner among the log's lines
    )
    celery_worker.start()
    return int(celery_worker.exitcode or 0)


def _keep_logging(**_: Any) -> None:
    """Celery must not replace the process's own logging."""


def _give_up() -> None:
    """End this process after the slice: an engine is replaced with the process that owns it."""
    log.critical("the engine cannot be trusted: this worker ends")
    state.should_stop = 1
