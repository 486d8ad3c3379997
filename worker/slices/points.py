"""Points of runs: of one that this process may not have seen, and when those are kept whose journal is not enough.
Knows writers, no engine.

Such a run's rows wait in its writer until a point is kept after them (`journal_writer`): at every evaluation, every
`point_steps` where nothing is evaluated, and where the run leaves the worker. A crash goes back to the last of them,
which `worker.adapters.restored` reads.
"""

from db.worker import journal
from db.worker.points import Kept
from worker.adapters import parents, restored, snapshots
from worker.runs import rebuilding
from worker.runs.replay import Point
from worker.slices.context import Context
from worker.slices.journal_writer import JournalWriter
from worker.slices.resident import LeasedRun


def keep(writer: JournalWriter, point: Point) -> None:
    """The run of `writer` can go on from here, once what leads here is committed."""
    step = point.state.step
    if step > writer.kept:
        writer.keep(Kept(step, snapshots.encoded(point, restored.prefix(writer.claim.job_id, step))))


def left(writer: JournalWriter, point: Point) -> None:
    """The run leaves its worker at this point: it is kept whole there, where its journal is not enough."""
    if writer.whole:
        keep(writer, point)


def reached(context: Context, leased: LeasedRun, step: int) -> Point:
    """The run after `step` steps, from memory where this process has seen it, else from the journal."""
    claim, run = leased.claim, leased.run
    if run.best_point is not None and run.best_point.state.step == step:
        return run.best_point
    if run.step == step:
        return run.point
    with context.transaction(claim.tenant_id) as session:
        history = journal.history(session, claim.job_id, step)
        if leased.writer.whole:
            return restored.kept(session, claim.job_id, history, context.base)
    kind = type(run.state)
    start = context.snapshots.newest(claim.job_id, claim.spec, history.losses, kind, history.restarts)
    return rebuilding.rebuild(history, context.base, start or parents.first(history, context.base))
