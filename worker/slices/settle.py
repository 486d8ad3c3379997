"""How a held run leaves a worker: finished, failed, paused, cancelled, released or dropped. Knows journal and disk."""

from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.ids import adapter_name
from db.telemetry import traces
from db.worker import journal, leases
from db.worker.journal import Published
from db.worker.leases import LeaseLost
from worker import failpoints, metrics
from worker.adapters.publish import publish
from worker.runs.replay import replay
from worker.slices.context import Held, Station
from worker.slices.journal_writer import persist

log = structlog.get_logger("worker.slices.settle")
OUTCOMES = {"pause": "paused", "cancel": "cancelled"}


def ended(station: Station, h: Held) -> bool:
    """Whether the run has come to an end, which is then written; asked after every step.

    Raises LeaseLost, and OperationalError or OSError where an end could not be written while the lease lasted.
    """
    wish = station.heartbeat.wish(h.job_id)
    budget = h.ledger.claim.spec.token_budget
    if h.ledger.refused or station.heartbeat.lost(h.job_id):
        h.ledger.flush(lambda: 0.0)  # refused by the database, which counts
        raise LeaseLost(h.job_id)
    if h.run.failed is not None:
        _fail(station, h, "nonfinite_loss", h.run.failed)
    elif h.run.done:
        _finish(station, h)
    elif wish is not None:
        _flush(station, h)
        # The wish may have been taken back since it was seen: releasing obeys the row as it is now.
        _write(station, h, lambda session: leases.release(session, h.ledger.claim))
        metrics.jobs_ended.labels(station.model, OUTCOMES[wish]).inc()
        log.info("obeyed", wish=wish, job=h.job_id, step=h.run.step)
    elif budget is not None and h.ledger.claim.scored_tokens + h.ledger.tokens > budget:
        _fail(station, h, "token_budget", f"the budget of {budget} scored tokens was spent at step {h.run.step}")
    else:
        return False
    drop(station, h.job_id)
    if wish == "pause" and not h.run.done:
        station.keep(h.job_id, h.resident)
    return True


def release(station: Station, h: Held) -> None:
    """Commit what is not committed and give the lease back; the run stays resident. Never raises: a run that cannot be
    written is dropped, and its lease, if it still is ours, runs out."""
    try:
        _flush(station, h)
        _write(station, h, lambda session: leases.release(session, h.ledger.claim))
    except LeaseLost:
        log.warning("lease lost", job=h.job_id, step=h.run.step)
        drop(station, h.job_id)
        return
    except SQLAlchemyError as error:
        log.error("dropped", job=h.job_id, step=h.run.step, error=str(error).partition("\n")[0])
        drop(station, h.job_id)
        return
    station.heartbeat.drop(h.job_id)
    station.keep(h.job_id, h.resident)
    if h.run.step - h.resident.snapshot >= station.settings.snapshot_steps:
        station.snapshots.write(h.job_id, h.run.point, h.resident.prefix.hex())
        h.resident.snapshot = h.run.step


def fault(station: Station, h: Held, error: ValueError) -> None:
    """End a run whose trials the engine refuses. Raises as `ended` does."""
    _fail(station, h, "engine_refused", str(error))
    drop(station, h.job_id)


def drop(station: Station, job_id: str) -> None:
    """Know nothing of the job any more."""
    station.heartbeat.drop(job_id)
    station.forget(job_id)


def _flush(station: Station, h: Held) -> None:
    h.ledger.flush(lambda: station.heartbeat.until(h.job_id))


def _write(station: Station, h: Held, write: Callable[[Session], object]) -> None:
    """One fenced transaction, tried while the lease lasts; a refusal is counted."""

    def act() -> None:
        with station.factory.begin() as session:
            write(session)

    try:
        persist(act, lambda: station.heartbeat.until(h.job_id))
    except LeaseLost:
        metrics.fenced_writes.labels(station.model).inc()
        raise


def _finish(station: Station, h: Held) -> None:
    _flush(station, h)
    published = _publish(station, h, h.run.best[0] if h.run.best else h.run.step)
    failpoints.point("before_finish")
    _write(station, h, lambda session: journal.finish(session, h.ledger.claim, published))
    metrics.published_adapters.labels(station.model, h.tenant_class).inc()
    metrics.jobs_ended.labels(station.model, "succeeded").inc()
    station.snapshots.forget(h.job_id)
    log.info("finished", job=h.job_id, step=h.run.step, published=published.step, sha256=published.sha256)


def _fail(station: Station, h: Held, code: str, message: str) -> None:
    """End as failed; the best checkpoint, where there is one, is published with it."""
    _flush(station, h)
    published = _publish(station, h, h.run.best[0]) if h.run.best else None
    _write(station, h, lambda session: journal.fail(session, h.ledger.claim, code, message, published))
    station.snapshots.forget(h.job_id)
    metrics.jobs_ended.labels(station.model, code).inc()
    log.warning("failed", job=h.job_id, step=h.run.step, code=code, reason=message)


def _publish(station: Station, h: Held, step: int) -> Published:
    """The adapter after `step` steps, from memory where this process has seen it, else from the journal."""
    with traces.span("publish", h.ledger.claim.traceparent, job=h.job_id, step=step):
        return _written(station, h, step)


def _written(station: Station, h: Held, step: int) -> Published:
    claim, resident = h.ledger.claim, h.resident
    if resident.best is not None and resident.best.state.step == step:
        point = resident.best
    elif h.run.step == step:
        point = resident.run.point
    else:
        with station.factory.begin() as session:
            losses = journal.read(session, claim, step)
        start = station.snapshots.newest(h.job_id, claim.spec, losses, type(h.run.state)) if losses else None
        point = replay(h.run.method, losses, start)
    name = adapter_name(claim.spec.model, claim.tenant_id, claim.spec.suffix, claim.job_id)
    folder = station.settings.home / "adapters"
    return publish(folder, claim.job_id, name, claim.spec, station.base, point)
