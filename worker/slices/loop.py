"""One slice: claim a cohort, step it together for some seconds, leave everything committed and released.

Knows the order of work; arithmetic, engine and SQL are others'."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import structlog
from sqlalchemy.exc import SQLAlchemyError

from db.telemetry import traces
from db.worker.candidates import Waiting, candidates
from db.worker.journal import Evaluated, Step
from db.worker.leases import LeaseLost
from worker import failpoints, metrics
from worker.runs import cohort
from worker.runs.cohort import StepResult
from worker.runs.run import Run
from worker.slices import acquire, scheduler, settle
from worker.slices.context import Context
from worker.slices.ending import (
    Cleared,
    Ending,
    Failed,
    Leaving,
    Out,
    Released,
    Verdict,
    ending,
    engine_raised,
    run_raised,
)
from worker.slices.persist import UNREACHABLE
from worker.slices.resident import LeasedRun
from worker.slices.scheduler import Length

log = structlog.get_logger("worker.slices.loop")


def run_slice(context: Context) -> bool:
    """One slice; whether work is left that no one holds, so that the doorbell should be rung again.

    Whatever happens in it, no claim is held when it is over. Raises OperationalError where the database is away.
    """
    with context.factory.begin() as session:
        waiting = candidates(session, context.model)
    picked = _apart(scheduler.pick(waiting, context.settings.cohort, context.quantum))
    metrics.slices.labels(context.model).inc()
    aboard: list[LeasedRun] = []
    leaving: Leaving = Released()
    try:
        stuck = _board(context, picked, aboard)
        if aboard:
            with _spans(aboard):
                length = scheduler.length(context.settings.slice_seconds, picked[0].suspect, aboard[0].claim.deaths)
                leaving = Cleared() if _advance(context, aboard, length) else Released()
    finally:
        try:
            _leave(context, aboard, leaving)
        finally:
            context.heartbeat.drop_all()
    if stuck or context.heartbeat.draining.is_set() or context.heartbeat.out is not None:
        return False
    with context.factory.begin() as session:
        return bool(candidates(session, context.model, limit=1))


def _apart(picked: Sequence[Waiting]) -> Sequence[Waiting]:
    """A suspect is tried alone, so that it cannot end for all what it has ended; and before anyone else, so that it
    does not wait for others to finish. It is soon cleared, or ended."""
    return [w for w in picked if w.suspect][:1] or picked


def _board(context: Context, picked: Sequence[Waiting], aboard: list[LeasedRun]) -> bool:
    """Acquire the picked; one that cannot be boarded stops no other. Whether some could not even be claimed, for which
    ringing again at once would not help."""
    stuck = False
    for waiting in picked:
        if context.heartbeat.draining.is_set():
            break
        try:
            with context.progress.step():
                leased = acquire.acquire(context, waiting)
        except UNREACHABLE as error:
            log.warning("not boarded", job=waiting.job_id, error=str(error).partition("\n")[0])
            break
        except Exception:
            log.exception("not boarded", job=waiting.job_id)
            stuck = True
        else:
            aboard += [leased] if leased is not None else []
    return stuck


@contextmanager
def _spans(aboard: Sequence[LeasedRun]) -> Iterator[None]:
    """A span for each run in its job's own trace, while it is aboard."""
    with ExitStack() as spans:
        here = traces.traceparent()
        for leased in aboard:
            links = [here] if here else []
            span = traces.begun("run", leased.claim.traceparent, links, job=leased.job_id, first_step=leased.run.step)
            spans.callback(span.end)
        yield


def _leave(context: Context, aboard: list[LeasedRun], leaving: Leaving) -> None:
    """Commit and release whoever is still aboard."""
    while aboard:
        leased = aboard.pop()
        with traces.within(leased.claim.traceparent):
            settle.release(context, leased, leaving)
    metrics.journal_lag_seconds.labels(context.model).set(0)
    metrics.cohort_runs.labels(context.model).set(0)


def _advance(context: Context, aboard: list[LeasedRun], length: Length) -> bool:
    """Step the runs that are `aboard` until the slice is over, where True is returned, or none is left, or it was cut
    short. At least one step is taken, and a round that was begun is ended, so that runs of cheap steps get their share
    beside a long one."""
    begun = time.monotonic()
    runs, steps = list(aboard), 0
    turns: dict[str, int] = {}  # steps left of this round
    _settle(context, aboard)  # a wish, or nothing left to do, may be known already
    try:
        while aboard:
            metrics.cohort_runs.labels(context.model).set(len(aboard))
            if not any(turns.values()):
                each = scheduler.turns([leased.resident.tokens for leased in aboard])
                turns = {leased.job_id: n for leased, n in zip(aboard, each, strict=True)}
            if not _step(context, aboard, [leased for leased in aboard if turns[leased.job_id]]):
                return False
            steps += 1
            _settle(context, aboard)
            turns = {leased.job_id: max(0, turns[leased.job_id] - 1) for leased in aboard}
            if length.over(time.monotonic() - begun, steps) and not any(turns.values()):
                return True
            if context.heartbeat.draining.is_set() or context.heartbeat.out is not None:
                return False
        return True
    finally:
        context.learn([leased.writer.tokens for leased in runs if leased.writer.tokens])


def _step(context: Context, aboard: list[LeasedRun], stepping: list[LeasedRun]) -> bool:
    """One step of the cohort `stepping`, entered with the writers. False where the engine raised: nothing has been
    taken then, those that were in the batch are not aboard any more, and the fault is found."""
    started = time.perf_counter()
    try:
        with context.progress.step(), traces.span("step", runs=len(stepping)):
            stepped = cohort.step([leased.run for leased in stepping], context.scorer)
    except Exception as error:
        log.exception("the engine failed", jobs=[leased.job_id for leased in stepping])
        metrics.engine_failures.labels(context.model).inc()
        with context.progress.step():
            verdict = engine_raised(error, alone=len(aboard) == 1, sound=context.scorer.sound)
        _judge(context, aboard, stepping, verdict)
        return False
    failpoints.point("after_score", *(leased.job_id for leased in stepping))
    for leased, (run, result) in zip(stepping, stepped, strict=True):
        _enter(context, leased, run, result)
    metrics.step_seconds.labels(context.model).observe(time.perf_counter() - started)
    return True


def _judge(context: Context, aboard: list[LeasedRun], those: Sequence[LeasedRun], verdict: Verdict) -> None:
    """Let `those` go as the verdict says, and the worker where it says so."""
    if verdict.worker is not None:
        context.leave_service(verdict.worker)
    for leased in those:
        aboard.remove(leased)
        with traces.within(leased.claim.traceparent):
            if isinstance(verdict.runs, Failed):
                _end(context, leased, verdict.runs)
            else:
                settle.release(context, leased, verdict.runs)


def _enter(context: Context, leased: LeasedRun, run: Run, result: StepResult) -> None:
    """What one step of a run has given: to the writer, the resident and the counters."""
    step = evaluated = None
    spent = 0
    if result.losses is not None:
        step = Step(leased.run.step, list(result.losses), result.tokens)
        spent += result.tokens
        metrics.steps.labels(context.model, leased.tenant_class).inc()
        wild = sum(not math.isfinite(x) for x in result.losses)
        metrics.nonfinite_losses.labels(context.model).inc(wild)
    if result.evaluation is not None:
        e = result.evaluation
        evaluated = Evaluated(e.step, e.loss, e.accuracy, e.rows, e.tokens)
        spent += e.tokens
    metrics.scored_tokens.labels(context.model, leased.tenant_class).inc(spent)
    leased.writer.add(step, evaluated, run.best, spent)
    leased.resident.advance(run, result)


def _settle(context: Context, aboard: list[LeasedRun]) -> None:
    """Settle those that have ended; the others stay aboard, and their writes that are due begin."""
    for leased in list(aboard):
        lost = leased.writer.refused or context.heartbeat.lost(leased.job_id)
        wish = context.heartbeat.wish(leased.job_id)
        how = ending(leased.run, lost=lost, wish=wish, scored=leased.scored_tokens)
        if how is not None:
            aboard.remove(leased)
            with traces.within(leased.claim.traceparent):
                _end(context, leased, how)
    for leased in aboard:
        leased.writer.flush_due(context.pool, context.settings.flush_seconds)
    lag = max((leased.writer.lag() for leased in aboard), default=0.0)
    metrics.journal_lag_seconds.labels(context.model).set(lag)


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
