"""Points of runs whose journal is not enough, kept whole with the rows up to them. Knows no format and no method."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from db.tables import Job, Point

CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Kept:
    """The point after `step` steps, as a file has it."""

    step: int
    data: bytes = field(repr=False)


def keep(session: Session, job: Job, points: Sequence[Kept], best: int | None) -> None:
    """Stores these points of the job, whose row is locked, and drops what is neither the newest nor that of step
    `best`. One that is there already stays as it is."""
    if not points:
        return
    newest = max(point.step for point in points)
    wanted = {newest, best}
    there = set(session.scalars(select(Point.step).where(Point.job_id == job.id, Point.number == 0)))
    for point in points:
        if point.step in wanted and point.step not in there:
            _store(session, job, point)
    gone = delete(Point).where(Point.job_id == job.id, Point.step.not_in([step for step in wanted if step is not None]))
    session.execute(gone.execution_options(synchronize_session=False))


def read(session: Session, job_id: str, step: int) -> bytes | None:
    """The point after so many steps; None where it is not kept."""
    wanted = select(Point.data).where(Point.job_id == job_id, Point.step == step).order_by(Point.number)
    pieces = session.scalars(wanted).all()
    return b"".join(pieces) if pieces else None


def _store(session: Session, job: Job, point: Kept) -> None:
    mark = {"tenant_id": job.tenant_id, "job_id": job.id, "step": point.step}
    for number, start in zip(count(), range(0, len(point.data), CHUNK_BYTES), strict=False):
        piece = {"number": number, "data": point.data[start : start + CHUNK_BYTES]}
        session.execute(insert(Point).values(**mark, **piece))
