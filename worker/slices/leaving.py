"""How runs leave a slice that is under way: ended, judged, or told to. Knows no engine and no order of work."""

from collections.abc import Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from db.store.seam import StoreAway
from db.telemetry import traces
from db.worker.leases import LeaseLost
from worker import metrics
from worker.slices import settle
from worker.slices.context import Context
from worker.slices.ending import Ending, Failed, Out, Released, Verdict, ending, run_raised
from worker.slices.resident import LeasedRun

log = structlog.get_logger("worker.slices.leaving")


def told_to(context: Context) -> bool:
    """Whether the slice is to be cut short: the worker drains, or is out of service."""
    return context.heartbeat.draining.is_set() or context.heartbeat.out is not None


def settle_ended(context: Context, aboard: list[LeasedRun]) -> None:
    """Settle those that have ended; the others stay aboard, and their writes that are due begin. Between two
    waves it is the step under way that is given up."""
    for leased in list(aboard):
        lost = leased.writer.refused or context.heartbeat.lost(leased.job_id)
        wish = context.heartbeat.wish(leased.job_id)
        how = ending(leased.run, lost=lost, wish=wish, scored=leased.scored_tokens)
        if how is not None:
            aboard.remove(leased)
            leased.resident.under_way = None  # a step given up is as though it had not been begun
            with traces.within(leased.claim.traceparent):
                _end(context, leased, how)
    for leased in aboard:
        leased.writer.flush_due(context.pool, context.settings.flush_seconds)
    lag = max((leased.writer.lag() for leased in aboard), default=0.0)
    metrics.journal_lag_seconds.labels(context.model).set(lag)


def judge(context: Context, aboard: list[LeasedRun], those: Sequence[LeasedRun], verdict: Verdict) -> None:
    """Let `those` go as the verdict says, and the worker where it says so."""
    if verdict.worker is not None:
        context.leave_service(verdict.worker)
    for leased in those:
        aboard.remove(leased)
        leased.resident.under_way = None
        with traces.within(leased.claim.traceparent):
            if isinstance(verdict.runs, Failed):
                _end(context, leased, verdict.runs)
            else:
                settle.release(context, leased, verdict.runs)


def _end(context: Context, leased: LeasedRun, how: Ending) -> None:
    """Settle a run. A disk that refuses is the worker's fault; where the database is away until the lease has run out,
    whoever claims the job next replays it."""
    try:
        settle.settle(context, leased, how)
    except LeaseLost:
        settle.drop(context, leased.job_id)
        log.warning("lease lost", job=leased.job_id, step=leased.run.step)
    except SQLAlchemyError as error:
        settle.drop(context, leased.job_id)
        log.error("dropped", job=leased.job_id, step=leased.run.step, error=str(error).partition("\n")[0])
    except OSError as error:
        context.leave_service(Out("disk", str(error)))
        settle.release(context, leased)
    except StoreAway as error:
        context.leave_service(Out("store", str(error)))
        settle.release(context, leased)
    except Exception as error:
        log.exception("could not be ended", job=leased.job_id, step=leased.run.step)
        _not_ended(context, leased, run_raised(error, alone=leased.claim.alone))


def _not_ended(context: Context, leased: LeasedRun, verdict: Verdict) -> None:
    if not isinstance(verdict.runs, Failed):
        settle.let_go(context, leased.claim, verdict.runs)
        return
    try:
        settle.refuse(context, leased.claim, verdict.runs)
    except (LeaseLost, SQLAlchemyError):
        settle.let_go(context, leased.claim, Released())
