"""The point of any job after any number of its steps, from its rows: replayed, or as it was kept whole. Knows the rows
of a journal; no lease, no engine, and no tenant but the one whose transaction it is given.

Reading and replaying are apart: a replay may take minutes, and no transaction waits for it.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from db.contract.history import History
from db.contract.tokens.base_model import Base
from db.worker import journal, points
from db.worker.journal import NotWhole
from worker.adapters import parents, snapshots
from worker.runs import fingerprint, rebuilding, recipes
from worker.runs.replay import Point
from worker.zo.method import State


class NotKept(NotWhole):
    """The point is not there, or not what it was."""


@dataclass(frozen=True)
class Gathered:
    """What a job's adapter follows from; `kept` is its point after the last step where no replay leads there."""

    job_id: str
    history: History
    kept: Point | None = None


def gathered(session: Session, job_id: str, step: int, base: Base) -> Gathered:
    """Raises LookupError for a job that is not there, NotWhole where its journal is not, NotKept."""
    history = journal.history(session, job_id, step)
    whole = history.spec.method.replay == "snapshots"
    return Gathered(job_id, history, kept(session, job_id, history, base) if whole else None)


def point(of: Gathered, base: Base, start: Point | None = None) -> Point:
    """The point after all its steps, replayed from `start` where given: equal to the bit to what training had. Raises
    ParentChanged, and ValueError for rows that do not lead there."""
    return of.kept or rebuilding.rebuild(of.history, base, start or parents.first(of.history, base))


def kept(session: Session, job_id: str, history: History, base: Base, step: int | None = None) -> Point:
    """The job's point after `step` steps of its history, after all of them where that is None, of a job whose journal
    is not enough. Raises NotKept where it is not there, or is not what the row of its step says."""
    step = history.step if step is None else step
    if step == 0:
        return parents.first(history, base)
    data = points.read(session, job_id, step)
    if data is None:
        raise NotKept(f"{job_id} has no point after step {step}: it followed from gradients, which no journal has")
    try:
        point = snapshots.decoded(data, prefix(job_id, step), state(history, base))
    except snapshots.REFUSED as error:
        raise NotKept(f"the point of {job_id} after step {step} cannot be read: {error}") from error
    if fingerprint.numbers(point.params) != tuple(history.losses[step - 1][-fingerprint.NUMBERS :]):
        raise NotKept(f"the point of {job_id} after step {step} is not what the row of its step says")
    return point


def prefix(job_id: str, step: int) -> str:
    """What a point that is kept whole belongs to."""
    return f"{job_id} {step}"


def state(history: History, base: Base) -> type[State]:
    """The kind of its method's state."""
    layout = recipes.layout(history.spec, base)
    return type(recipes.method(history.spec, layout, profile=history.profile).init()[1])
