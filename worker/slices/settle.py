"""How a leased run leaves a worker: settled as it ended, released, or dropped. Knows journal and disk."""

from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.ids import adapter_name
from db.telemetry import traces
from db.transitions import Wish
from db.worker import journal, leases
from db.worker.journal import Published
from db.worker.leases import LeaseLost
from worker import failpoints, metrics
from worker.adapters.publish import publish
from worker.runs.replay import Point, replay
from worker.slices.context import Context
from worker.slices.ending import Ending, Failed, Finished, Lost, Obeyed
from worker.slices.persist import persist
from worker.slices.resident import LeasedRun

log = structlog.get_logger("worker.slices.settle")
OUTCOMES = {"pause": "paused", "cancel": "cancelled"}


def settle(context: Context, leased: LeasedRun, ending: Ending) -> None:
    """Write how the run ended and let it go; one that was paused stays resident.

    Raises LeaseLost, and OperationalError or OSError where the end could not be written while the lease lasted.
    """
    match ending:
        case Lost():
            leased.writer.flush(lambda: 0.0)  # refused by the database, which counts
            raise LeaseLost(leased.job_id)
        case Finished():
            _finish(context, leased)
        case Failed(code, message):
            _fail(context, leased, code, message)
        case Obeyed(wish):
            _obey(context, leased, wish)
    drop(context, leased.job_id)
    if ending == Obeyed("pause"):
        context.keep(leased.job_id, leased.resident)


def release(context: Context, leased: LeasedRun) -> None:
    """Commit what is not committed and give the lease back; the run stays resident. Never raises: a run that cannot be
    written is dropped, and its lease, if it still is ours, runs out."""
    try:
        _flush(context, leased)
        _write(context, leased, lambda session: leases.release(session, leased.claim))
    except LeaseLost:
        log.warning("lease lost", job=leased.job_id, step=leased.run.step)
        drop(context, leased.job_id)
        return
    except SQLAlchemyError as error:
        log.error("dropped", job=leased.job_id, step=leased.run.step, error=str(error).partition("\n")[0])
        drop(context, leased.job_id)
        return
    context.heartbeat.drop(leased.job_id)
    context.keep(leased.job_id, leased.resident)
    if leased.run.step - leased.resident.snapshot >= context.settings.snapshot_steps:
        context.snapshots.write(leased.job_id, leased.run.point, leased.resident.prefix.hex())
        leased.resident.snapshot = leased.run.step


def drop(context: Context, job_id: str) -> None:
    """Know nothing of the job any more."""
    context.heartbeat.drop(job_id)
    context.forget(job_id)


def _flush(context: Context, leased: LeasedRun) -> None:
    leased.writer.flush(lambda: context.heartbeat.until(leased.job_id))


def _write(context: Context, leased: LeasedRun, write: Callable[[Session], object]) -> None:
    """One fenced transaction, tried while the lease lasts; a refusal is counted."""

    def act() -> None:
        with context.transaction(leased.claim.tenant_id) as session:
            write(session)

    try:
        persist(act, lambda: context.heartbeat.until(leased.job_id), leased.writer.clock)
    except LeaseLost:
        metrics.fenced_writes.labels(context.model).inc()
        raise


def _finish(context: Context, leased: LeasedRun) -> None:
    _flush(context, leased)
    published = _publish(context, leased, leased.run.best[0] if leased.run.best else leased.run.step)
    failpoints.point("before_finish")
    _write(context, leased, lambda session: journal.finish(session, leased.claim, published))
    metrics.published_adapters.labels(context.model, leased.tenant_class).inc()
    metrics.jobs_ended.labels(context.model, "succeeded").inc()
    context.snapshots.forget(leased.job_id)
    log.info("finished", job=leased.job_id, step=leased.run.step, published=published.step, sha256=published.sha256)


def _fail(context: Context, leased: LeasedRun, code: str, message: str) -> None:
    """End as failed; the best checkpoint, where there is one, is published with it."""
    _flush(context, leased)
    published = _publish(context, leased, leased.run.best[0]) if leased.run.best else None
    _write(context, leased, lambda session: journal.fail(session, leased.claim, code, message, published))
    context.snapshots.forget(leased.job_id)
    metrics.jobs_ended.labels(context.model, code).inc()
    log.warning("failed", job=leased.job_id, step=leased.run.step, code=code, reason=message)


def _obey(context: Context, leased: LeasedRun, wish: Wish) -> None:
    """The wish may have been taken back since it was seen: releasing obeys the row as it is now."""
    _flush(context, leased)
    _write(context, leased, lambda session: leases.release(session, leased.claim))
    metrics.jobs_ended.labels(context.model, OUTCOMES[wish]).inc()
    log.info("obeyed", wish=wish, job=leased.job_id, step=leased.run.step)


def _publish(context: Context, leased: LeasedRun, step: int) -> Published:
    """The adapter after `step` steps, as files. Raises OSError."""
    claim, folder = leased.claim, context.settings.home / "adapters"
    with traces.span("publish", claim.traceparent, job=leased.job_id, step=step):
        name = adapter_name(claim.spec.model, claim.tenant_id, claim.spec.suffix, claim.job_id)
        return publish(folder, claim.job_id, name, claim.spec, context.base, _point(context, leased, step))


def _point(context: Context, leased: LeasedRun, step: int) -> Point:
    """The run after `step` steps, from memory where this process has seen it, else from the journal."""
    claim, resident = leased.claim, leased.resident
    if resident.best is not None and resident.best.state.step == step:
        return resident.best
    if leased.run.step == step:
        return leased.run.point
    with context.transaction(leased.claim.tenant_id) as session:
        losses = journal.read(session, claim, step)
    start = context.snapshots.newest(leased.job_id, claim.spec, losses, type(leased.run.state)) if losses else None
    return replay(leased.run.method, losses, start)
