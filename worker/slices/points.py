"""Points of runs whose journal is not enough: when they are kept, and how they come back. Knows rows, no engine.

Such a run's rows wait in its writer until a point is kept after them (`journal_writer`): at every evaluation, every
`point_steps` where nothing is evaluated, and where the run leaves the worker. A crash goes back to the last of them.
"""

from sqlalchemy.orm import Session

from db.contract.history import History
from db.contract.tokens.base_model import Base
from db.worker import points
from db.worker.journal import NotWhole
from db.worker.points import Kept
from worker.adapters import parents, snapshots
from worker.runs import fingerprint, recipes
from worker.runs.replay import Point
from worker.slices.journal_writer import JournalWriter


class NotKept(NotWhole):
    """The point is not there, or not what it was."""


def keep(writer: JournalWriter, point: Point) -> None:
    """The run of `writer` can go on from here, once what leads here is committed."""
    step = point.state.step
    if step > writer.kept:
        writer.keep(Kept(step, snapshots.encoded(point, _prefix(writer.claim.job_id, step))))


def left(writer: JournalWriter, point: Point) -> None:
    """The run leaves its worker at this point: it is kept whole there, where its journal is not enough."""
    if writer.whole:
        keep(writer, point)


def read(session: Session, job_id: str, history: History, base: Base, step: int | None = None) -> Point:
    """The job's point after `step` steps of its history, after all of them where that is None. Raises NotKept where it
    is not there, or is not what the row of its step says."""
    step = history.step if step is None else step
    if step == 0:
        return parents.first(history, base)
    data = points.read(session, job_id, step)
    if data is None:
        raise NotKept(f"{job_id} has no point after step {step}: it followed from gradients, which no journal has")
    layout = recipes.layout(history.spec, base)
    _, state = recipes.method(history.spec, layout, profile=history.profile).init()
    try:
        point = snapshots.decoded(data, _prefix(job_id, step), type(state))
    except snapshots.REFUSED as error:
        raise NotKept(f"the point of {job_id} after step {step} cannot be read: {error}") from error
    if fingerprint.numbers(point.params) != tuple(history.losses[step - 1][-fingerprint.NUMBERS :]):
        raise NotKept(f"the point of {job_id} after step {step} is not what the row of its step says")
    return point


def _prefix(job_id: str, step: int) -> str:
    return f"{job_id} {step}"
