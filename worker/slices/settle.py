"""How a leased run leaves a worker: settled as it ended, released, or dropped. Knows journal and disk."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db import deposits
from db.ids import adapter_name
from db.telemetry import traces
from db.transitions import Wish
from db.worker import journal, leases
from db.worker.journal import Published
from db.worker.leases import Claim, LeaseLost
from worker import failpoints, metrics
from worker.adapters.publish import publish
from worker.slices import drifted, points
from worker.slices.context import Context
from worker.slices.ending import (
    Cleared,
    Ending,
    Failed,
    Finished,
    Killed,
    Leaving,
    Lost,
    Obeyed,
    Out,
    Released,
    Suspected,
)
from worker.slices.persist import persist
from worker.slices.resident import LeasedRun

log = structlog.get_logger("worker.slices.settle")
T = TypeVar("T")
OUTCOMES = {"pause": "paused", "cancel": "cancelled"}


def settle(context: Context, leased: LeasedRun, ending: Ending) -> None:
    """Write how the run ended and let it go; one that was paused stays resident.

    Raises LeaseLost, OperationalError where the end could not be written while the lease lasted, and OSError where the
    disk refused: the job is as it was then, and still leased.
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
        leased.resident.pace.rest()
        context.keep(leased.job_id, leased.resident)


def release(context: Context, leased: LeasedRun, leaving: Leaving = Released()) -> None:
    """Commit what is not committed and give the lease back; the run stays resident. Never raises: a run that cannot be
    written is dropped, and its lease, if it still is ours, runs out."""
    try:
        _flush(context, leased)
        _write(context, leased, lambda session: _give_back(session, leased.claim, leaving))
    except LeaseLost:
        log.warning("lease lost", job=leased.job_id, step=leased.run.step)
        drop(context, leased.job_id)
        return
    except SQLAlchemyError as error:
        log.error("dropped", job=leased.job_id, step=leased.run.step, error=str(error).partition("\n")[0])
        drop(context, leased.job_id)
        return
    except Exception:
        log.exception("not committed", job=leased.job_id, step=leased.run.step)
        let_go(context, leased.claim, leaving)
        return
    context.heartbeat.drop(leased.job_id)
    context.keep(leased.job_id, leased.resident)
    _keep_snapshot(context, leased)


def let_go(context: Context, claim: Claim, leaving: Leaving) -> None:
    """Give a claim back with nothing of its run, which is known no more. Never raises."""
    try:
        with context.transaction(claim.tenant_id) as session:
            _give_back(session, claim, leaving)
    except (LeaseLost, SQLAlchemyError) as error:
        log.warning("not given back", job=claim.job_id, error=str(error).partition("\n")[0])
    drop(context, claim.job_id)


def refuse(context: Context, claim: Claim, failed: Failed) -> None:
    """End a claimed job that cannot be run, as it is. Raises LeaseLost, and OperationalError."""

    def write() -> None:
        with context.transaction(claim.tenant_id) as session:
            journal.fail(session, claim, failed.code, failed.message)

    persist(write, lambda: context.heartbeat.until(claim.job_id))
    drop(context, claim.job_id)
    metrics.jobs_ended.labels(context.model, failed.code).inc()
    log.warning("refused", job=claim.job_id, code=failed.code, reason=failed.message)


def _give_back(session: Session, claim: Claim, leaving: Leaving) -> None:
    match leaving:
        case Released():
            leases.release(session, claim)
        case Cleared():
            leases.release(session, claim, suspect=False)
        case Suspected():
            leases.release(session, claim, suspect=True)
        case Killed():
            leases.blame(session, claim)


def _keep_snapshot(context: Context, leased: LeasedRun) -> None:
    if leased.writer.whole or leased.run.step - leased.resident.snapshot < context.settings.snapshot_steps:
        return
    try:
        context.snapshots.write(leased.job_id, leased.run.point, leased.resident.prefix.hex())
        leased.resident.snapshot = leased.run.step
    except OSError as error:
        context.leave_service(Out("disk", str(error)))


def drop(context: Context, job_id: str) -> None:
    """Know nothing of the job any more."""
    context.heartbeat.drop(job_id)
    context.forget(job_id)


def _flush(context: Context, leased: LeasedRun) -> None:
    points.left(leased.writer, leased.run.point)
    leased.writer.flush(lambda: context.heartbeat.until(leased.job_id))


def _write(context: Context, leased: LeasedRun, write: Callable[[Session], T]) -> T:
    """One fenced transaction, tried while the lease lasts; a refusal is counted."""

    def act() -> T:
        with context.transaction(leased.claim.tenant_id) as session:
            return write(session)

    try:
        return persist(act, lambda: context.heartbeat.until(leased.job_id), leased.writer.clock)
    except LeaseLost:
        metrics.fenced_writes.labels(context.model).inc()
        raise


def _finish(context: Context, leased: LeasedRun) -> None:
    _flush(context, leased)
    run = leased.run
    published = _publish(context, leased, run.best[0] if run.best else run.step)
    failpoints.point("before_finish")
    with _deposited(context, leased, published) as lies:
        made, claim = lies, leased.claim
        succeeded = _write(
            context, leased, lambda s: journal.finish(s, claim, _receipted(context, leased, s, made), run.stopped)
        )
    if not succeeded:
        shutil.rmtree(published.path, ignore_errors=True)
        _obeyed(context, leased, "cancel")
        return
    metrics.published_adapters.labels(context.model, leased.tenant_class).inc()
    metrics.jobs_ended.labels(context.model, "succeeded").inc()
    context.snapshots.forget(leased.job_id)
    how = {"stopped": run.stopped} if run.stopped else {}
    log.info("finished", job=leased.job_id, step=run.step, published=published.step, sha256=published.sha256, **how)


def _fail(context: Context, leased: LeasedRun, code: str, message: str) -> None:
    """End as failed; the best checkpoint, where there is one, is published with it."""
    _flush(context, leased)
    published = _publish(context, leased, leased.run.best[0]) if leased.run.best else None
    if published is None:
        _write(context, leased, lambda session: journal.fail(session, leased.claim, code, message))
    else:
        with _deposited(context, leased, published) as lies:
            made, claim = lies, leased.claim
            _write(
                context, leased, lambda s: journal.fail(s, claim, code, message, _receipted(context, leased, s, made))
            )
    context.snapshots.forget(leased.job_id)
    metrics.jobs_ended.labels(context.model, code).inc()
    log.warning("failed", job=leased.job_id, step=leased.run.step, code=code, reason=message)


def _obey(context: Context, leased: LeasedRun, wish: Wish) -> None:
    """The wish may have been taken back since it was seen: releasing obeys the row as it is now."""
    _flush(context, leased)
    _write(context, leased, lambda session: leases.release(session, leased.claim))
    _obeyed(context, leased, wish)


def _obeyed(context: Context, leased: LeasedRun, wish: Wish) -> None:
    if wish == "cancel":
        context.snapshots.forget(leased.job_id)
    metrics.jobs_ended.labels(context.model, OUTCOMES[wish]).inc()
    log.info("obeyed", wish=wish, job=leased.job_id, step=leased.run.step)


def _publish(context: Context, leased: LeasedRun, step: int) -> Published:
    """The adapter after `step` steps, as files. Raises OSError."""
    claim, folder = leased.claim, context.settings.home / "adapters"
    with traces.span("publish", claim.traceparent, job=leased.job_id, step=step):
        name = adapter_name(claim.spec.model, claim.tenant_id, claim.spec.suffix, claim.job_id)
        point = points.reached(context, leased, step)
        made = publish(folder, claim.job_id, name, claim.spec, context.base, point)
        made = replace(made, drift=drifted.of(context, leased, point))
    context.receipts.ready(context.base.path)
    return made


def _receipted(context: Context, leased: LeasedRun, session: Session, made: Published) -> Published:
    return replace(made, receipt=context.receipts.issue(session, leased.job_id, context.base.path, made))


@contextmanager
def _deposited(context: Context, leased: LeasedRun, published: Published) -> Iterator[Published]:
    """Its tar in the store of files before the transaction that names it. Raises StoreAway."""
    tenant = leased.claim.tenant_id
    with deposits.deposited(tenant, context.stores, lambda: context.transaction(tenant), [published.tar]) as there:
        yield replace(published, lies=there) if isinstance(there, deposits.Deposited) else published
