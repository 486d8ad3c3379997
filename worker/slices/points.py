"""Points of runs whose journal is not enough: when they are kept. Knows writers, no engine.

Such a run's rows wait in its writer until a point is kept after them (`journal_writer`): at every evaluation, every
`point_steps` where nothing is evaluated, and where the run leaves the worker. A crash goes back to the last of them,
which `worker.adapters.restored` reads.
"""

from db.worker.points import Kept
from worker.adapters import restored, snapshots
from worker.runs.replay import Point
from worker.slices.journal_writer import JournalWriter


def keep(writer: JournalWriter, point: Point) -> None:
    """The run of `writer` can go on from here, once what leads here is committed."""
    step = point.state.step
    if step > writer.kept:
        writer.keep(Kept(step, snapshots.encoded(point, restored.prefix(writer.claim.job_id, step))))


def left(writer: JournalWriter, point: Point) -> None:
    """The run leaves its worker at this point: it is kept whole there, where its journal is not enough."""
    if writer.whole:
        keep(writer, point)
