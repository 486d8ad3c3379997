"""From a waiting job to a leased run: claim, and continue, replay or start it. Knows leases and files, no engine."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.contract.history import History
from db.contract.rows.jsonl import BadRow
from db.store.seam import StoreAway
from db.telemetry import traces
from db.worker import journal, leases
from db.worker.candidates import Waiting
from db.worker.leases import Claim, LeaseLost
from worker import metrics
from worker.adapters import parents, restored, snapshots
from worker.runs import data, rebuilding
from worker.runs.divergence import recalled
from worker.runs.replay import Point
from worker.runs.run import Run, start
from worker.slices.context import Context
from worker.slices.ending import Failed, Released, run_raised
from worker.slices.journal_writer import JournalWriter
from worker.slices.pace import went_on
from worker.slices.persist import UNREACHABLE
from worker.slices.resident import LeasedRun, Resident
from worker.slices.settle import drop, let_go, refuse

log = structlog.get_logger("worker.slices.acquire")


def acquire(context: Context, waiting: Waiting) -> LeasedRun | None:
    """The run of `waiting` under a lease of this worker, ready for its next step.

    None where there is none to be had: another worker was faster, the job has ended or waits for a newer worker, or it
    could not be loaded and was given back or has failed. Raises OperationalError where the database is away; a claim
    whose run is not returned is held no more, whatever happened.
    """
    claim = _claim(context, waiting)
    if claim is None:
        return None
    if claim.alone and not waiting.suspect:  # a suspect only since it was picked, in company
        let_go(context, claim, Released())
        return None
    try:
        resident = _resident(context, claim)
    except LeaseLost:  # taken over while it was being replayed
        drop(context, claim.job_id)
        return None
    except UNREACHABLE:
        let_go(context, claim, Released())
        raise
    except Exception as error:
        _not_loaded(context, claim, error)
        return None
    writer = JournalWriter(
        claim, context.model, context.factory, resident.pace, now=lambda: resident.run.point, told=context.committed
    )
    return LeasedRun(resident, writer, waiting.tenant_class, waiting.weight)


def _claim(context: Context, waiting: Waiting) -> Claim | None:
    settings, before = context.settings, time.monotonic()
    with context.transaction(waiting.tenant_id) as session:
        claim = leases.claim(
            session,
            waiting.job_id,
            context.worker_id,
            settings.lease_seconds,
            settings.max_attempts,
            settings.deaths_seconds,
        )
    if claim is None:
        return None
    context.heartbeat.hold(claim, before)
    if claim.took_over:
        metrics.lease_expiries.labels(context.model).inc()
    if claim.token == 1:
        wait = (datetime.now(UTC) - claim.created_at).total_seconds()
        metrics.queue_wait_seconds.labels(context.model, waiting.tenant_class).observe(max(0.0, wait))
        if claim.expected_start is not None:
            foretold = (claim.expected_start - claim.created_at).total_seconds()
            metrics.wait_estimate_ratio.labels(context.model).observe(max(1.0, foretold) / max(1.0, wait))
    return claim


def _resident(context: Context, claim: Claim) -> Resident:
    """The run as it was kept, or as the journal has it. Memory that kept runs take is given to one that lacks it."""
    resident = context.residents.pop(claim.job_id, None)
    if resident is not None and resident.run.step == claim.step:
        resident.pace.wake()
        return resident
    with traces.span("load", claim.traceparent, job=claim.job_id, step=claim.step):
        try:
            return _load(context, claim)
        except MemoryError:
            if not context.residents:
                raise
            log.warning("out of memory: no run is kept any more", job=claim.job_id)
        context.forget_all()
        return _load(context, claim)


def _not_loaded(context: Context, claim: Claim, error: Exception) -> None:
    verdict = run_raised(error, alone=claim.alone)
    if not isinstance(error, (BadRow, StoreAway)):
        log.exception("not loaded", job=claim.job_id, verdict=str(verdict.runs))
    if verdict.worker is not None:
        context.leave_service(verdict.worker)
    if not isinstance(verdict.runs, Failed):
        let_go(context, claim, verdict.runs)
        return
    try:
        with traces.within(claim.traceparent):
            refuse(context, claim, verdict.runs)
    except (LeaseLost, SQLAlchemyError):
        let_go(context, claim, Released())


def _load(context: Context, claim: Claim) -> Resident:
    """The run as the journal has it: from the newest snapshot that lies on the journal, and replay of the rest."""
    spec, started = claim.spec, time.perf_counter()
    with context.transaction(claim.tenant_id) as session:
        train = leases.read_file(session, claim, spec.training_file)
        valid = leases.read_file(session, claim, spec.validation_file) if spec.validation_file else b""
        history = journal.history(session, claim.job_id, claim.step)
        heard = journal.evaluations(session, claim)
        pace = went_on(claim.step, spec.steps, journal.committed_at(session, claim), claim.estimated_finish)
        whole = _kept(context, session, claim, history) if spec.method.replay == "snapshots" else None
    rows = data.dataset(context.base, spec, train, valid)
    run = start(claim.job_id, spec, context.base, rows, claim.tenant_id, history.profile)
    best = None if claim.best_step is None or claim.best_loss is None else (claim.best_step, claim.best_loss)
    run = replace(run, watch=recalled(spec, heard, history.restarts, claim.step))
    run = _replayed(context, run, history, best) if whole is None else _at(run, whole, best)
    seconds = time.perf_counter() - started
    if history.losses:
        metrics.replay_seconds.labels(context.model).observe(seconds)
    log.info("replayed" if history.losses else "started", job=claim.job_id, step=run.step, seconds=round(seconds, 3))
    return Resident(run, spec, pace, snapshots.Prefix(spec, history.losses, history.restarts), snapshot=run.step)


def _kept(context: Context, session: Session, claim: Claim, history: History) -> dict[int, Point]:
    """The points of a run whose journal is not enough: that of its last step, and the best."""
    wanted = {claim.step} if claim.best_step is None else {claim.step, claim.best_step}
    return {step: restored.kept(session, claim.job_id, history, context.base, step) for step in wanted}


def _at(run: Run, kept: dict[int, Point], best: tuple[int, float] | None) -> Run:
    run = run.at(kept[max(kept)], best, len(run.watch.restarts))
    return replace(run, best_point=None if best is None else kept[best[0]])


def _replayed(context: Context, run: Run, history: History, best: tuple[int, float] | None) -> Run:
    """The run after all of its history; where it may go back to its best step, with the point of that."""
    job_id, spec, kind, restarts = run.job_id, run.spec, type(run.state), history.restarts
    mark = best[0] if best is not None and run.watch.may_restart(spec) else None
    losses = history.losses
    snapshot = context.snapshots.newest(job_id, spec, losses, kind, restarts, mark) if losses else None
    wanted = {history.step, history.step if mark is None else mark}
    points = rebuilding.points(history, context.base, wanted, snapshot or parents.first(history, context.base))
    run = run.at(points[history.step], best, len(restarts))
    return replace(run, best_point=None if mark is None else points[mark])
