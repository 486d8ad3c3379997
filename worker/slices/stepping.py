"""The steps of a slice: whose turn it is, scored wave by wave, entered with the writers. Knows no order of claims.

Between two waves tenants' wishes, lost leases and a drain are heard, so that nobody waits for another's step, nor to
leave his own: a step that is given up has left nothing anywhere.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from db.telemetry import traces
from db.worker.journal import Evaluated, Step
from worker import failpoints, metrics
from worker.runs.cohort import Batch, Stepping, StepResult, ask
from worker.runs.run import Run
from worker.slices import leaving, points, shares, wide
from worker.slices.context import Context
from worker.slices.ending import Released, Verdict, engine_raised, run_raised
from worker.slices.resident import LeasedRun, UnderWay
from worker.slices.scheduler import Length

log = structlog.get_logger("worker.slices.stepping")


@dataclass(frozen=True)
class Turn:
    """What the next turn of a run is expected to score: a step, or a wave of one that is wide."""

    job_id: str
    tenant_id: str
    weight: float
    cost: int


def advance(context: Context, aboard: list[LeasedRun], length: Length) -> bool:
    """Step the runs that are `aboard` until the slice is over, where it is told whether it had its length, or none is
    left, or it was cut short. A wide step that is under way stays so: it goes on in the run's next slice here."""
    begun, stood = time.monotonic(), context.progress.stood()
    runs, steps = list(aboard), 0
    leaving.settle_ended(context, aboard)  # a wish, or nothing left to do, may be known already
    try:
        while aboard:
            metrics.cohort_runs.labels(context.model).set(len(aboard))
            taken = _turn(context, aboard)
            if taken is None:
                return False
            steps += taken
            leaving.settle_ended(context, aboard)
            elapsed = time.monotonic() - begun - (context.progress.stood() - stood)
            if length.over(elapsed, steps):
                return True
            if elapsed >= length.seconds and any(leased.resident.under_way for leased in aboard):
                return False
            if leaving.told_to(context):
                return False
        return True
    finally:
        context.learn([leased.writer.tokens for leased in runs if leased.writer.tokens])


def _turn(context: Context, aboard: list[LeasedRun]) -> int | None:
    """What is next by fair share: a step of some runs, together, or waves of wide ones. 1 where a step was completed;
    None where it was cut short: told to leave, or the engine raised."""
    turns, context.shares = shares.turns([_expected(context, leased) for leased in aboard], context.shares)
    chosen = {turn.job_id for turn in turns}
    together, alone = [], []
    for leased in [x for x in aboard if x.job_id in chosen]:
        if leased.resident.under_way is None:
            stepping = _asked(context, aboard, leased)
            if stepping is None:
                continue
            if not wide.is_wide(stepping.tokens, context.settings.max_tokens):
                together.append((leased, stepping))
                continue
            if not _may_begin(context, aboard, leased, stepping):
                continue
        alone.append(leased)
    completed = _step(context, aboard, together) if together else 0
    for leased in alone:
        if completed is None or leaving.told_to(context):
            return None
        leaving.settle_ended(context, aboard)
        if any(leased is x for x in aboard):  # what was heard meanwhile may have ended it
            one = _wave(context, aboard, leased)
            completed = None if one is None else max(completed, one)
    return completed


def _expected(context: Context, leased: LeasedRun) -> Turn:
    under_way, last = leased.resident.under_way, leased.resident.tokens
    cost = context.settings.max_tokens if wide.is_wide(last, context.settings.max_tokens) else last
    return Turn(leased.job_id, leased.claim.tenant_id, leased.weight, under_way.next if under_way else cost)


def _may_begin(context: Context, aboard: list[LeasedRun], leased: LeasedRun, stepping: Stepping) -> bool:
    """Begin a wide step, where not as many are under way as may be; else the run leaves the slice, known as wide."""
    kept = [*context.residents.values(), *(x.resident for x in aboard)]
    if wide.under_way(kept) < context.settings.cohort:
        leased.resident.under_way = UnderWay(stepping)
        return True
    leased.resident.tokens = stepping.tokens
    leaving.judge(context, aboard, [leased], Verdict(Released()))
    return False


def _asked(context: Context, aboard: list[LeasedRun], leased: LeasedRun) -> Stepping | None:
    """What the run's next step asks for; None where it cannot say, which is its own fault."""
    try:
        with context.progress.step():
            return ask(leased.run)
    except Exception as error:
        log.exception("nothing to ask", job=leased.job_id, step=leased.run.step)
        leaving.judge(context, aboard, [leased], run_raised(error, alone=leased.claim.alone))
        return None


def _step(context: Context, aboard: list[LeasedRun], those: Sequence[tuple[LeasedRun, Stepping]]) -> int | None:
    """One step of `those`, in one batch. Who ends between two waves gives its step up, and the others keep theirs."""
    started, stepping = time.perf_counter(), [leased for leased, _ in those]
    with traces.span("step", runs=len(those)):
        batch = _begun(context, aboard, stepping, [step for _, step in those])
        while batch is not None and not batch.done:
            if not _advanced(context, aboard, stepping, batch):
                return None
            if batch.done:
                break
            leaving.settle_ended(context, aboard)
            for number, leased in enumerate(stepping):
                if not any(leased is x for x in aboard):
                    batch.drop(number)
            if leaving.told_to(context):
                return None
    told = _told(context, aboard, stepping, batch)
    if told is None:
        return None
    for number, (run, result) in told.items():
        _enter(context, stepping[number], run, result)
    metrics.step_seconds.labels(context.model).observe(time.perf_counter() - started)
    return 1 if told else 0


def _wave(context: Context, aboard: list[LeasedRun], leased: LeasedRun) -> int | None:
    """One wave of a wide step: 1 where it was the last, 0 where others are left."""
    under_way = leased.resident.under_way
    assert under_way is not None
    started = time.perf_counter()
    with traces.span("wave", job=leased.job_id):
        if under_way.batch is None:
            under_way.batch = _begun(context, aboard, [leased], [under_way.stepping])
        batch = under_way.batch
        before = batch.tokens if batch is not None else 0
        if batch is None or not _advanced(context, aboard, [leased], batch):
            return None
    under_way.tokens += before
    under_way.seconds += time.perf_counter() - started
    context.shares = context.shares.charged(leased.claim.tenant_id, before)
    if not batch.done:
        return 0
    told = _told(context, aboard, [leased], batch)
    if told is None:
        return None
    leased.resident.under_way = None
    _enter(context, leased, *told[0], paid=True)
    metrics.step_seconds.labels(context.model).observe(under_way.seconds)
    return 1


def _begun(
    context: Context, aboard: list[LeasedRun], those: Sequence[LeasedRun], stepping: Sequence[Stepping]
) -> Batch | None:
    """Their steps as one batch, of which nothing is scored yet. None where the engine cannot take them."""
    try:
        return Batch(stepping, context.scorer)
    except Exception as error:
        _engine_failed(context, aboard, those, error)
        return None


def _advanced(context: Context, aboard: list[LeasedRun], those: Sequence[LeasedRun], batch: Batch) -> bool:
    """Score the next wave. False where the engine raised: nothing has been taken then, those that were in the batch are
    not aboard any more, and the fault is found."""
    try:
        with context.progress.step():
            batch.advance()
    except Exception as error:
        _engine_failed(context, aboard, those, error)
        return False
    return True


def _told(
    context: Context, aboard: list[LeasedRun], those: Sequence[LeasedRun], batch: Batch | None
) -> dict[int, tuple[Run, StepResult]] | None:
    """The runs after their steps, by number; None where that raised, or the engine did before."""
    if batch is None:
        return None
    try:
        told = batch.told()
    except Exception as error:
        _engine_failed(context, aboard, those, error)
        return None
    failpoints.point("after_score", *(leased.job_id for leased in those))
    return told


def _engine_failed(context: Context, aboard: list[LeasedRun], those: Sequence[LeasedRun], error: Exception) -> None:
    log.exception("the engine failed", jobs=[leased.job_id for leased in those])
    metrics.engine_failures.labels(context.model).inc()
    alone = len(aboard) == 1
    with context.progress.step():
        verdict = engine_raised(error, alone=alone, sound=context.scorer.sound)
    leaving.judge(context, aboard, [x for x in those if any(x is y for y in aboard)], verdict)


def _enter(context: Context, leased: LeasedRun, run: Run, result: StepResult, paid: bool = False) -> None:
    """What one step of a run has given: to the writer, the resident and the counters; and, where it is not `paid` wave
    by wave, to its tenant's share."""
    step = evaluated = None
    spent = 0
    if result.losses is not None:
        step = Step(leased.run.step, list(result.losses), result.tokens)
        spent += result.tokens
        metrics.steps.labels(context.model, leased.tenant_class).inc()
        wild = sum(not math.isfinite(x) for x in result.losses[:: run.method.numbers])
        metrics.nonfinite_losses.labels(context.model).inc(wild)
    if result.evaluation is not None:
        e = result.evaluation
        evaluated = Evaluated(e.step, e.loss, e.accuracy, e.rows, e.tokens, e.noise, e.diverged, e.newly, e.terms)
        spent += e.tokens
    metrics.scored_tokens.labels(context.model, leased.tenant_class).inc(spent)
    if not paid:
        context.shares = context.shares.charged(leased.claim.tenant_id, spent)
    leased.writer.add(step, evaluated, run.best, spent, run.watch.restarts)
    if leased.writer.whole:
        _keep(context, leased, run, evaluated is not None)
    leased.resident.advance(run, result)


def _keep(context: Context, leased: LeasedRun, after: Run, evaluated: bool) -> None:
    """What was `evaluated` is a point that its run can go on from, and so is what follows where none was for long."""
    if evaluated:
        points.keep(leased.writer, leased.run.point)
    if after.step - leased.writer.kept >= context.settings.point_steps:
        points.keep(leased.writer, after.point)
