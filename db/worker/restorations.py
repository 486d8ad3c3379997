"""Steps that tenants have asked for, as a worker rebuilds them: one at a time, under its heartbeat. Knows no replay.

A row is claimed with its worker's id and is another's once that worker's heartbeat is old: a kill costs the time that
takes to be seen, and the adapter is the same bits whoever rebuilds it.
"""

from dataclasses import dataclass
from datetime import timedelta
from itertools import count

from sqlalchemy import ColumnElement, and_, func, insert, literal, select, text, update
from sqlalchemy.orm import Session

from db.contract.spec import SPEC_VERSION
from db.tables import Restoration, RestoredChunk, Worker

CHUNK_BYTES = 2**20
SILENT_SECONDS = 30.0  # of a worker's heartbeat, after which what it held is anybody's
KEPT = timedelta(days=1)

# Tenants in turn: the first that each has asked for, then everybody's second.
WAITING = text("""
    SELECT asked.tenant_id, asked.job_id, asked.step
      FROM (
        SELECT r.tenant_id, r.job_id, r.step, r.asked_at,
               row_number() OVER (PARTITION BY r.tenant_id ORDER BY r.asked_at, r.job_id, r.step) AS turn
          FROM restorations r
          JOIN jobs j ON j.id = r.job_id
         WHERE r.state = 'asked' AND j.model = :model AND j.spec_version <= :known
           AND NOT EXISTS (SELECT FROM adapters a WHERE a.job_id = r.job_id AND a.deleted_at IS NOT NULL)
           AND NOT EXISTS (
                SELECT FROM workers w
                 WHERE w.id = r.held_by AND w.state <> 'gone'
                   AND w.heartbeat_at > clock_timestamp() - make_interval(secs => :silent))
      ) asked
     ORDER BY asked.turn, asked.asked_at, asked.job_id, asked.step
     LIMIT :most
""")


@dataclass(frozen=True)
class Asked:
    """The adapter of the job after `step` steps is wanted."""

    tenant_id: str
    job_id: str
    step: int


def waiting(session: Session, model: str, most: int = 8) -> list[Asked]:
    """What is asked for of the model's jobs and that no living worker is at, in the order of turns. For a session that
    looks across tenants."""
    asked = {"model": model, "known": SPEC_VERSION, "silent": SILENT_SECONDS, "most": most}
    return [Asked(*row) for row in session.execute(WAITING, asked)]


def claim(session: Session, asked: Asked, worker_id: str) -> bool:
    """Whether it is this worker's to rebuild now. At most one of any number of concurrent callers has it."""
    fresh = func.clock_timestamp() - literal(timedelta(seconds=SILENT_SECONDS))
    lives = and_(Worker.id == Restoration.held_by, Worker.state != "gone", Worker.heartbeat_at > fresh)
    held = select(Worker.id).where(lives).exists()
    free = select(Restoration).where(*_is(asked), Restoration.state == "asked", ~held)
    row = session.scalar(free.with_for_update(skip_locked=True, key_share=True, of=Restoration))
    if row is None:
        return False
    row.held_by = worker_id
    session.flush()
    return True


def ready(session: Session, asked: Asked, worker_id: str, sha256: str, tar: bytes) -> bool:
    """Keeps what was rebuilt for a day; False, and nothing kept, where it is not this worker's any more."""
    row = _held(session, asked, worker_id)
    if row is None:
        return False
    mark = {"tenant_id": asked.tenant_id, "job_id": asked.job_id, "step": asked.step}
    for number, start in zip(count(), range(0, len(tar), CHUNK_BYTES), strict=False):
        piece = {"number": number, "data": tar[start : start + CHUNK_BYTES]}
        session.execute(insert(RestoredChunk).values(**mark, **piece))
    row.state, row.sha256, row.bytes, row.held_by = "ready", sha256, len(tar), None
    row.expires_at = func.now() + literal(KEPT)
    session.flush()
    return True


def failed(session: Session, asked: Asked, worker_id: str, code: str, message: str) -> None:
    """Says why there is none."""
    row = _held(session, asked, worker_id)
    if row is not None:
        row.state, row.error, row.held_by = "failed", {"code": code, "message": message}, None
        row.expires_at = func.now() + literal(KEPT)
        session.flush()


def let_go(session: Session, worker_id: str, asked: Asked) -> None:
    """As it was before this worker claimed it."""
    mine = Restoration.state == "asked", Restoration.held_by == worker_id
    session.execute(update(Restoration).where(*_is(asked), *mine).values(held_by=None))


def _held(session: Session, asked: Asked, worker_id: str) -> Restoration | None:
    mine = select(Restoration).where(*_is(asked), Restoration.state == "asked", Restoration.held_by == worker_id)
    return session.scalar(mine.with_for_update(key_share=True).execution_options(populate_existing=True))


def _is(asked: Asked) -> tuple[ColumnElement[bool], ...]:
    step = Restoration.job_id == asked.job_id, Restoration.step == asked.step
    return Restoration.tenant_id == asked.tenant_id, *step
