"""Who is rung for again: work that no live lease holds, once a while. Knows no broker and no tenant."""

from datetime import timedelta

from sqlalchemy import func, literal, select, update
from sqlalchemy.orm import Session

from db import workers
from db.queue import Ring, bell
from db.tables import Job, Lease


def sweep(session: Session, ring: Ring, every: float = 5.0) -> int:
    """Rings once for each model and kind of job that a worker serves, that has work no live lease holds, and that was
    not rung for in `every` seconds. Any number of processes may sweep: a waiting job remembers the last ring. Returns
    the rings.
    """
    held = select(Lease.job_id).where(Lease.job_id == Job.id, Lease.expires_at > func.clock_timestamp())
    overdue = func.clock_timestamp() - literal(timedelta(seconds=every))
    rung = 0
    for model, autograd in sorted(workers.served(session)):
        mine = Job.model == model, Job.autograd == autograd
        waiting = select(Job.id).where(*mine, Job.state.in_(("queued", "running")), ~held.exists())
        first = waiting.order_by(Job.tenant_id, Job.created_at, Job.id).limit(1).scalar_subquery()
        due = select(Job.id).where(Job.id == first, Job.rung_at < overdue)
        job = session.scalar(due.with_for_update(skip_locked=True, key_share=True))
        if job is not None:
            session.execute(update(Job).where(Job.id == job).values(rung_at=func.clock_timestamp()))
            ring(bell(model, autograd))
            rung += 1
    return rung
