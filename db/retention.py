"""What is dropped in time: events and journals of ended jobs, restored steps, old usage, workers and idle shares.

The journal of a published adapter is its receipt and is kept, as is that of a job that another goes on from, and
everything of a job that has not ended. Knows no disk.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, literal, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from db.columns import Base
from db.tables import (
    Adapter,
    Daily,
    Evaluation,
    Event,
    Job,
    JournalStep,
    Lease,
    Point,
    Pruned,
    Restoration,
    Served,
    ServedDay,
    Usage,
    Worker,
)
from db.usage import UTC_DAY

ADVISORY_LOCK = 0x6F6E7761726401  # one process at a time; the others have nothing to wait for
JOBS, ROWS = 500, 2000  # the most that one call looks at, and drops, of a kind
MINUTES = timedelta(days=1)  # of usage by the minute, which only says how it goes now, and by the request
# A share is locked before it is looked whether a job waits, in a statement that begins with the lock in hand: a job
# that comes meanwhile is seen, or its trigger waits for the lock and makes the share anew (migration 0004).
IDLE = """
    JOIN clocks c ON c.model = s.model
   WHERE s.finish <= c.virtual AND NOT EXISTS (
        SELECT FROM jobs j
         WHERE j.model = s.model AND j.tenant_id = s.tenant_id AND j.state IN ('queued', 'running'))
"""
LOCK_IDLE = text(f"SELECT s.model, s.tenant_id FROM shares s {IDLE} LIMIT {ROWS} FOR UPDATE OF s SKIP LOCKED")
DROP_IDLE = text(f"""
    DELETE FROM shares WHERE (model, tenant_id) IN (SELECT s.model, s.tenant_id FROM shares s {IDLE})
       AND (model, tenant_id) IN (SELECT * FROM unnest(CAST(:models AS varchar[]), CAST(:tenants AS varchar[])))
""")


@dataclass(frozen=True)
class Keep:
    """For how many days each is kept; 0 is for ever."""

    events: float
    journal: float
    usage: float
    workers: float


def prune(session: Session, keep: Keep) -> int:
    """Drops a small batch of what has been kept long enough, and returns the rows; 0 where another process is at it.

    Called again and again it comes to an end of what is due.
    """
    if not session.scalar(select(func.pg_try_advisory_xact_lock(ADVISORY_LOCK))):
        return 0
    dropped = _of_ended(session, "events", keep.events, (Event,), (Event.id,))
    dropped += _of_ended(session, "journal", keep.journal, (JournalStep, Evaluation), None)
    dropped += _drop(session, Restoration, (Restoration.job_id, Restoration.step), Restoration.expires_at < func.now())
    dropped += _drop(session, Usage, (Usage.minute, Usage.model, Usage.tenant_id), Usage.minute < _ago(MINUTES))
    dropped += _drop(session, Served, (Served.tenant_id, Served.request), Served.at < _ago(MINUTES))
    over = select(Job.id).where(Job.id == Point.job_id, Job.finished_at.is_not(None)).exists()
    dropped += _drop(session, Point, (Point.job_id, Point.step, Point.number), over)  # an older release ended it
    if keep.usage:
        old = Daily.day < UTC_DAY - int(keep.usage)
        dropped += _drop(session, Daily, (Daily.tenant_id, Daily.day), old)
        old = ServedDay.day < UTC_DAY - int(keep.usage)
        dropped += _drop(session, ServedDay, (ServedDay.tenant_id, ServedDay.day), old)
    if keep.workers:
        leased = select(Lease.job_id).where(Lease.worker_id == Worker.id).exists()
        dropped += _drop(session, Worker, (Worker.id,), Worker.heartbeat_at < _ago(_days(keep.workers)), ~leased)
    return dropped + _idle_shares(session)


def _of_ended(session: Session, kind: str, days: float, tables: tuple[Any, ...], key: tuple[Any, ...] | None) -> int:
    """Rows of jobs in the order of their ends, from where the last call came to."""
    if not days:
        return 0
    place = tuple_(Job.finished_at, Job.id)
    due = select(Job.finished_at, Job.id).where(Job.finished_at < _ago(_days(days))).order_by(Job.finished_at, Job.id)
    came = session.get(Pruned, kind, populate_existing=True)
    if came is not None:
        due = due.where(place > tuple_(literal(came.finished_at), literal(came.job_id)))
    jobs = session.execute(due.limit(JOBS)).all()
    if not jobs:
        return 0
    dropped = 0
    for table in tables:
        mine = Job.id == table.job_id, Job.id.in_([job_id for _, job_id in jobs]), Job.finished_at.is_not(None)
        ended = select(Job.id).where(*mine)
        if kind == "journal":
            child = aliased(Job)
            receipt = select(Adapter.id).where(Adapter.job_id == Job.id).exists()
            ended = ended.where(~receipt, ~select(child.id).where(child.parent_id == Job.id).exists())
        count = _drop(session, table, key or (table.job_id, table.step), ended.exists())
        dropped += count
        if count == ROWS:
            return dropped  # there may be more of these jobs
    finished_at, job_id = jobs[-1]
    now = {"finished_at": finished_at, "job_id": job_id}
    session.execute(insert(Pruned).values(kind=kind, **now).on_conflict_do_update(index_elements=["kind"], set_=now))
    return dropped


def _drop(session: Session, table: type[Base], key: tuple[Any, ...], *which: ColumnElement[bool]) -> int:
    chosen = select(*key).where(*which).limit(ROWS)
    gone = delete(table).where(tuple_(*key).in_(chosen)).execution_options(synchronize_session=False)
    return int(session.execute(gone).rowcount)  # type: ignore[attr-defined]


def _idle_shares(session: Session) -> int:
    idle = session.execute(LOCK_IDLE).all()
    if not idle:
        return 0
    models, tenants = zip(*idle, strict=True)
    return int(session.execute(DROP_IDLE, {"models": list(models), "tenants": list(tenants)}).rowcount)  # type: ignore[attr-defined]


def _days(days: float) -> timedelta:
    return timedelta(days=days)


def _ago(age: timedelta) -> ColumnElement[Any]:
    return func.now() - literal(age)  # stable, so that an index finds them
