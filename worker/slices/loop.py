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
from worker.runs.run import Run
from worker.slices import scheduler, settle
from worker.slices.acquire import board
from worker.slices.context import Held, Station
from worker.slices.journal_writer import UNREACHABLE

log = structlog.get_logger("worker.slices.loop")


def take(station: Station) -> bool:
    """One slice; whether work is left that no one holds, so that the doorbell should be rung again.

    Raises OperationalError where the database is away.
    """
    with station.factory.begin() as session:
        waiting = candidates(session, station.model)
    picked = scheduler.pick(waiting, station.settings.cohort, station.quantum)
    held = [run for run in _board(station, _apart(picked, station.suspects)) if run is not None]
    metrics.slices.labels(station.model).inc()
    if held:
        with ExitStack() as spans:
            here = traces.traceparent()
            for h in held:
                links = [here] if here else []
                span = traces.begun("run", h.ledger.claim.traceparent, links, job=h.job_id, first_step=h.run.step)
                spans.callback(span.end)
            _advance(station, held)
    if station.heartbeat.draining.is_set():
        return False
    with station.factory.begin() as session:
        return bool(candidates(session, station.model, limit=1))


def _apart(picked: Sequence[Waiting], suspects: set[str]) -> Sequence[Waiting]:
    """Jobs that were in a batch the engine failed at are tried alone, so that one cannot fail for all."""
    if not picked or not suspects.intersection(w.job_id for w in picked):
        return picked
    if picked[0].job_id in suspects:
        return picked[:1]
    return [w for w in picked if w.job_id not in suspects]


def _board(station: Station, picked: Sequence[Waiting]) -> list[Held | None]:
    held: list[Held | None] = []
    for waiting in picked:
        if station.heartbeat.draining.is_set():
            break
        try:
            with station.progress.step():
                held.append(board(station, waiting))
        except LeaseLost:  # taken over while it was being replayed
            settle.drop(station, waiting.job_id)
        except UNREACHABLE as error:
            log.warning("not boarded", job=waiting.job_id, error=str(error).partition("\n")[0])
            settle.drop(station, waiting.job_id)
            break
    return held


def _advance(station: Station, held: list[Held]) -> None:
    """Step `held` until the slice is over or none is left; then commit and release. At least one step is taken, and
    a round that was begun is ended, so that runs of cheap steps get their share beside a long one."""
    ends = time.monotonic() + station.settings.slice_seconds
    scored = dict.fromkeys((h.job_id for h in held), 0)
    left: dict[str, int] = {}  # steps of this round
    live = _settled(station, held)  # a wish, or nothing left to do, may be known already
    try:
        while live:
            metrics.cohort_runs.labels(station.model).set(len(live))
            if not any(left.values()):
                costs = [h.resident.tokens for h in live]
                left = dict(zip((h.job_id for h in live), scheduler.turns(costs), strict=True))
            waiting = [h for h in live if not left[h.job_id]]
            before = {h.job_id: h.ledger.tokens for h in live}
            stepped = _step(station, [h for h in live if left[h.job_id]])
            for h in stepped:
                scored[h.job_id] += h.ledger.tokens - before[h.job_id]
            live = _settled(station, waiting + stepped)
            left = {h.job_id: max(0, left[h.job_id] - 1) for h in live}
            over = time.monotonic() >= ends and not any(left.values())
            if over or not stepped or station.heartbeat.draining.is_set():
                break
    finally:
        for h in live:
            with traces.within(h.ledger.claim.traceparent):
                settle.release(station, h)
        metrics.journal_lag_seconds.labels(station.model).set(0)
        metrics.cohort_runs.labels(station.model).set(0)
        station.scored([count for count in scored.values() if count])


def _step(station: Station, live: list[Held]) -> list[Held]:
    """One step of the cohort, entered in the ledgers; the runs that are still to be settled.

    Where the engine raises, nothing has been taken. Of several runs each is a suspect from then on and tried alone; a
    single one that the engine refuses (ValueError) has failed; for anything else the engine itself is not to be
    trusted any more, and the process ends without giving the lease back, so that the attempt counts.
    """
    started = time.perf_counter()
    try:
        with station.progress.step(), traces.span("step", runs=len(live)):
            stepped = cohort.step([h.run for h in live], station.scorer)
    except Exception as error:
        log.exception("the engine failed", jobs=[h.job_id for h in live])
        metrics.engine_failures.labels(station.model).inc()
        if len(live) > 1:
            station.suspects.update(h.job_id for h in live)
            for h in live:
                settle.release(station, h)
        elif isinstance(error, ValueError):
            settle.fault(station, live[0], error)
        else:
            settle.drop(station, live[0].job_id)
            station.give_up()
        return []
    failpoints.point("after_score")
    station.suspects.difference_update(h.job_id for h in live)
    for h, (run, result) in zip(live, stepped, strict=True):
        _enter(station, h, run, result)
    metrics.step_seconds.labels(station.model).observe(time.perf_counter() - started)
    return live


def _enter(station: Station, h: Held, run: Run, result: cohort.StepResult) -> None:
    """What one step of a run has given: into the ledger, the resident and the counters."""
    step = evaluated = None
    spent = 0
    if result.losses is not None:
        step = Step(h.run.step, list(result.losses), result.tokens)
        spent += result.tokens
        metrics.steps.labels(station.model, h.tenant_class).inc()
        wild = sum(not math.isfinite(x) for x in result.losses)
        metrics.nonfinite_losses.labels(station.model).inc(wild)
    if result.evaluation is not None:
        e = result.evaluation
        evaluated = Evaluated(e.step, e.loss, e.accuracy, e.rows, e.tokens)
        spent += e.tokens
    metrics.scored_tokens.labels(station.model, h.tenant_class).inc(spent)
    h.ledger.add(step, evaluated, run.best, spent)
    h.resident.advance(run, result)


def _settled(station: Station, held: list[Held]) -> list[Held]:
    """Those of `held` that go on. The others are finished, failed, obeyed or dropped; writes that are due begin."""
    live = []
    for h in held:
        try:
            with traces.within(h.ledger.claim.traceparent):
                if not settle.ended(station, h):
                    live.append(h)
        except LeaseLost:
            settle.drop(station, h.job_id)
            log.warning("lease lost", job=h.job_id, step=h.run.step)
        except (SQLAlchemyError, OSError) as error:
            # The database or the disk is away and the lease ran out meanwhile: whoever claims the job next replays it.
            settle.drop(station, h.job_id)
            log.error("dropped", job=h.job_id, step=h.run.step, error=str(error).partition("\n")[0])
    for h in live:
        h.ledger.flush_due(station.pool, station.settings.flush_seconds)
    lag = max((h.ledger.lag() for h in live), default=0.0)
    metrics.journal_lag_seconds.labels(station.model).set(lag)
    return live
