"""The drift of what a job publishes: measured once, at its end. A number beside the result, never in its way."""

import math

import structlog

from worker.runs import drift
from worker.runs.replay import Point
from worker.slices.context import Context
from worker.slices.resident import LeasedRun

log = structlog.get_logger("worker.slices.drifted")


def of(context: Context, leased: LeasedRun, point: Point) -> float | None:
    """Of the leased run's adapter at this point: mean KL to the base, nats a token. None where it was not measured,
    whatever the reason: the job's adapter is made, and an engine that is off is found by its canary."""
    try:
        with context.progress.step():
            run = leased.run
            found = drift.measured(context.scorer, context.base, run.layout, point.params, run.scope)
    except Exception:
        log.exception("drift not measured", job=leased.job_id, step=point.state.step)
        return None
    return found if found is not None and math.isfinite(found) else None
