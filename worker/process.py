"""The life of a worker process: registration, engine, heartbeat, Celery, an orderly end. Knows no step of training."""

import os
import socket
import threading
import warnings
from pathlib import Path
from typing import Any

import huggingface_hub
import structlog
from celery import Celery, signals
from celery.platforms import SecurityWarning
from celery.worker import state
from prometheus_client import start_http_server
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import sessionmaker

from db import bases, queue, workers
from db.bases import Base
from db.session import make_engine, sessions
from worker import metrics, tasks
from worker.heartbeat import Heartbeat
from worker.metrics import MeteredScorer
from worker.settings import WorkerSettings
from worker.station import Station

log = structlog.get_logger("worker.process")


def run(settings: WorkerSettings) -> int:
    """Serve until told to stop; the exit status. Raises what keeps a worker from starting."""
    base = bases.load(settings.model, settings)
    factory = sessions(settings.database_url)
    with factory.begin() as session:
        worker_id = workers.register(session, model=base.name, host=socket.gethostname(), pid=os.getpid())
    app = tasks.listener(settings.redis_url)
    ring = queue.ringer(app)
    beats = Heartbeat(sessionmaker(make_engine(settings.database_url, pool_size=1)), settings, worker_id, ring)
    beats.start()  # an engine takes its time to start, and a worker that starts is one that lives
    metrics.zero(base.name)
    if settings.worker_metrics_port:
        start_http_server(settings.worker_metrics_port)
    log.info("starting", worker=worker_id, model=base.name, scorer=settings.scorer)
    scorer, about = _open_scorer(settings, base)
    try:
        with factory.begin() as session:
            workers.beat(session, worker_id, state="ready", capacity=scorer.capacity, about=about)
        station = Station(settings, base, scorer, factory, worker_id, beats, ring, give_up=_give_up)
        log.info("ready", worker=worker_id, capacity=scorer.capacity, **about)
        return _serve(app, station)
    finally:
        beats.stop()
        try:
            with factory.begin() as session:
                workers.leave(session, worker_id)
        except SQLAlchemyError:
            log.warning("could not sign off", worker=worker_id)
        scorer.close()
        log.info("ended", worker=worker_id)


def _open_scorer(settings: WorkerSettings, base: Base) -> tuple[MeteredScorer, dict[str, Any]]:
    """The one engine of this process, checked, and what to tell about it."""
    weights = base.source if Path(base.source).is_dir() else huggingface_hub.snapshot_download(base.source)
    about: dict[str, Any] = {"scorer": settings.scorer, "dtype": settings.dtype}
    if settings.scorer == "torch":
        from worker.scoring.torch_scorer import TorchScorer

        oracle = TorchScorer(weights, dtype=settings.dtype, threads=settings.threads or None)
        return MeteredScorer(oracle, base.name), about
    from worker.scoring.vllm_scorer import VllmScorer

    engine = VllmScorer(
        weights,
        slots=settings.slots,
        max_rank=settings.max_rank,
        max_tokens=settings.max_tokens,
        dtype=settings.dtype,
        prompt_bytes=settings.prompt_bytes,
    )
    about |= engine.self_check() if settings.self_check else engine.engine.versions()
    return MeteredScorer(engine, base.name, engine.prompts), about


def _serve(app: Celery, station: Station) -> int:
    """Celery's worker, in this thread: solo pool, one message at a time, until SIGTERM or SIGINT."""
    tasks.bind(app, station)

    # Celery waits for the task to end; the flag makes that the next step. The receiver must outlive this call.
    def drain(**_: Any) -> None:
        station.heartbeat.draining.set()

    signals.worker_shutting_down.connect(drain, weak=False)
    signals.setup_logging.connect(_keep_logging, weak=False)
    threading.Thread(target=station.ring, args=(station.model,), daemon=True).start()  # what waited for a worker
    warnings.filterwarnings("ignore", category=SecurityWarning)  # root in a container: messages are JSON, never pickle
    celery_worker = app.Worker(
        pool_cls="solo",
        concurrency=1,
        queues=[queue.queue_name(station.model)],
        hostname=f"{station.worker_id}@{socket.gethostname()}",
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
