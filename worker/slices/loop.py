"""One slice: claim a cohort, step it together for some seconds, leave everything committed and released.

Knows the order of work; arithmetic, engine and SQL are others'."""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack

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
from worker.slices.ending import Ending, Failed, ending
from worker.slices.persist import UNREACHABLE
from worker.slices.resident import LeasedRun

log = structlog.get_logger("worker.slices.loop")


def run_slice(context: Context) -> bool:
    """One slice; whether work is left that no one holds, so that the doorbell should be rung again.

    Raises OperationalError where the database is away.
    """
    with context.across() as session:
        waiting = candidates(session, context.model)
    picked = scheduler.pick(waiting, context.settings.cohort, context.quantum)
    runs = _acquire(context, _apart(picked, context.suspects))
    metrics.slices.labels(context.model).inc()
    if runs:
        with ExitStack() as spans:
            here = traces.traceparent()
            for leased in runs:
                links = [here] if here else []
                span = traces.begun(
                    "run", leased.claim.traceparent, links, job=leased.job_id, first_step=leased.run.step
                )
                spans.callback(span.end)
            _advance(context, runs)
    if context.heartbeat.draining.is_set():
        return False
    with context.across() as session:
        return bool(candidates(session, context.model, limit=1))


def _apart(picked: Sequence[Waiting], suspects: set[str]) -> Sequence[Waiting]:
    """Jobs that were in a batch the engine failed at are tried alone, so that one cannot fail for all."""
    if not picked or not suspects.intersection(w.job_id for w in picked):
        return picked
    if picked[0].job_id in suspects:
        return picked[:1]
    return [w for w in picked if w.job_id not in suspects]


def _acquire(context: Context, picked: Sequence[Waiting]) -> list[LeasedRun]:
    runs: list[LeasedRun] = []
    for waiting in picked:
        if context.heartbeat.draining.is_set():
            break
        try:
            with context.progress.step():
                leased = acquire.acquire(context, waiting)
        except LeaseLost:  # taken over while it was being replayed
            settle.drop(context, waiting.job_id)
        except UNREACHABLE as error:
            log.warning("not boarded", job=waiting.job_id, error=str(error).partition("\n")[0])
            settle.drop(context, waiting.job_id)
            break
        else:
            runs += [leased] if leased is not None else []
    return runs


def _advance(context: Context, runs: list[LeasedRun]) -> None:
    """Step `runs` until the slice is over or none is left; then commit and release. At least one step is taken, and
    a round that was begun is ended, so that runs of cheap steps get their share beside a long one."""
    ends = time.monotonic() + context.settings.slice_seconds
    turns: dict[str, int] = {}  # steps left of this round
    live = _settle(context, runs)  # a wish, or nothing left to do, may be known already
    try:
        while live:
            metrics.cohort_runs.labels(context.model).set(len(live))
            if not any(turns.values()):
                each = scheduler.turns([leased.resident.tokens for leased in live])
                turns = {leased.job_id: n for leased, n in zip(live, each, strict=True)}
            waiting = [leased for leased in live if not turns[leased.job_id]]
            stepped = _step(context, [leased for leased in live if turns[leased.job_id]])
            live = _settle(context, waiting + stepped)
            turns = {leased.job_id: max(0, turns[leased.job_id] - 1) for leased in live}
            over = time.monotonic() >= ends and not any(turns.values())
            if over or not stepped or context.heartbeat.draining.is_set():
                break
    finally:
        for leased in live:
            with traces.within(leased.claim.traceparent):
                settle.release(context, leased)
        metrics.journal_lag_seconds.labels(context.model).set(0)
        metrics.cohort_runs.labels(context.model).set(0)
        context.learn([leased.writer.tokens for leased in runs if leased.writer.tokens])


def _step(context: Context, live: list[LeasedRun]) -> list[LeasedRun]:
    """One step of the cohort, entered with the writers; the runs that are still to be settled.

    Where the engine raises, nothing has been taken. Of several runs each is a suspect from then on and tried alone; a
    single one that the engine refuses (ValueError) has failed; for anything else the engine itself is not to be
    trusted any more, and the process ends without giving the lease back, so that the attempt counts.
    """
    started = time.perf_counter()
    try:
        with context.progress.step(), traces.span("step", runs=len(live)):
            stepped = cohort.step([leased.run for leased in live], context.scorer)
    except Exception as error:
        log.exception("the engine failed", jobs=[leased.job_id for leased in live])
        metrics.engine_failures.labels(context.model).inc()
        _suspect(context, live, error)
        return []
    failpoints.point("after_score")
    context.suspects.difference_update(leased.job_id for leased in live)
    for leased, (run, result) in zip(live, stepped, strict=True):
        _enter(context, leased, run, result)
    metrics.step_seconds.labels(context.model).observe(time.perf_counter() - started)
    return live


def _suspect(context: Context, live: list[LeasedRun], error: Exception) -> None:
    if len(live) > 1:
        context.suspects.update(leased.job_id for leased in live)
        for leased in live:
            settle.release(context, leased)
    elif isinstance(error, ValueError):
        _end(context, live[0], Failed("engine_refused", str(error)))
    else:
        settle.drop(context, live[0].job_id)
        context.give_up()


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


def _settle(context: Context, runs: list[LeasedRun]) -> list[LeasedRun]:
    """Settle those that have ended; the others go on, and their writes that are due begin."""
    live = []
    for leased in runs:
        lost = leased.writer.refused or context.heartbeat.lost(leased.job_id)
        wish = context.heartbeat.wish(leased.job_id)
        how = ending(leased.run, lost=lost, wish=wish, scored=leased.scored_tokens)
        if how is None:
            live.append(leased)
        else:
            _end(context, leased, how)
    for leased in live:
        leased.writer.flush_due(context.pool, context.settings.flush_seconds)
    lag = max((leased.writer.lag() for leased in live), default=0.0)
    metrics.journal_lag_seconds.labels(context.model).set(lag)
    return live


def _end(context: Context, leased: LeasedRun, how: Ending) -> None:
    """Settle a run; where that cannot be written, drop it: whoever claims the job next replays it."""
    try:
        with traces.within(leased.claim.traceparent):
            settle.settle(context, leased, how)
    except LeaseLost:
        settle.drop(context, leased.job_id)
        log.warning("lease lost", job=leased.job_id, step=leased.run.step)
    except (SQLAlchemyError, OSError) as error:
        # The database or the disk is away and the lease ran out meanwhile.
        settle.drop(context, leased.job_id)
        log.error("dropped", job=leased.job_id, step=leased.run.step, error=str(error).partition("\n")[0])
