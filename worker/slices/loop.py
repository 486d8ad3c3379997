"""One slice: claim a cohort, step it together for some seconds, leave everything committed and released.

Knows the order of work; arithmetic, engine and SQL are others'."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import structlog

from db.telemetry import traces
from db.worker import shares
from db.worker.candidates import Waiting, candidates
from worker import metrics
from worker.slices import acquire, leaving, scheduler, settle, stepping, wide
from worker.slices.context import Context
from worker.slices.ending import Cleared, Leaving, Released
from worker.slices.persist import UNREACHABLE
from worker.slices.resident import LeasedRun

log = structlog.get_logger("worker.slices.loop")


def run_slice(context: Context) -> bool:
    """One slice; whether work is left that no one holds, so that the doorbell should be rung again.

    Whatever happens in it, no claim is held when it is over. Raises OperationalError where the database is away.
    """
    with context.across() as session:
        limit, most = context.settings.cohort, context.settings.max_tokens
        more = wide.of(context.residents.values(), most)
        waiting = candidates(session, context.model, limit + 1, more, context.kinds)
        waiting = wide.fit(waiting, context.residents, limit, most)
        under_way = {job_id for job_id, kept in context.residents.items() if kept.under_way is not None}
        picked = _apart(scheduler.pick(waiting, limit, context.quantum), under_way)
        burst = scheduler.burst(limit, context.quantum)
        shares.serve(session, context.model, [w.tenant_id for w in picked], burst)
    metrics.slices.labels(context.model).inc()
    aboard: list[LeasedRun] = []
    how: Leaving = Released()
    try:
        stuck = _board(context, picked, aboard)
        if len(waiting) > len(picked) and not stuck:
            taken = {job.job_id for job in picked}
            # A worker that has nothing to do takes the others now, not after this slice.
            context.ring_for(job for job in waiting if job.job_id not in taken)
        if aboard:
            with _spans(aboard):
                length = scheduler.length(context.settings.slice_seconds, picked[0].suspect, aboard[0].claim.deaths)
                how = Cleared() if stepping.advance(context, aboard, length) else Released()
    finally:
        try:
            _leave(context, aboard, how)
        finally:
            context.heartbeat.drop_all()
    if stuck or leaving.told_to(context):
        return False
    with context.across() as session:
        return bool(candidates(session, context.model, limit=1, kinds=context.kinds))


def _apart(picked: Sequence[Waiting], under_way: Collection[str]) -> Sequence[Waiting]:
    """A suspect is tried alone, so that it cannot end for all what it has ended; and before anyone else, so that it
    does not wait for others to finish. It is soon cleared, or ended; one in the middle of a wide step, which goes on
    over slices, has its slice when it is its turn."""
    first = [w for n, w in enumerate(picked) if w.suspect and (n == 0 or w.job_id not in under_way)]
    return first[:1] or [w for w in picked if not w.suspect]


def _board(context: Context, picked: Sequence[Waiting], aboard: list[LeasedRun]) -> bool:
    """Acquire the picked; one that cannot be boarded stops no other. Whether some could not even be claimed, for which
    ringing again at once would not help."""
    stuck = False
    for waiting in picked:
        if leaving.told_to(context):
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


def _leave(context: Context, aboard: list[LeasedRun], how: Leaving) -> None:
    """Commit and release whoever is still aboard."""
    while aboard:
        leased = aboard.pop()
        with traces.within(leased.claim.traceparent):
            settle.release(context, leased, how)
    metrics.journal_lag_seconds.labels(context.model).set(0)
    metrics.cohort_runs.labels(context.model).set(0)
