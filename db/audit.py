"""The audit log: who changed what, written in the transaction of the change. Knows no kind of object."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, text, tuple_
from sqlalchemy.orm import Session

from db.ids import UnknownCursor, new_id
from db.tables import Audit

PRUNED_AT_ONCE = 10_000  # rows: a deletion must not be one long transaction


@dataclass
class Acting:
    """On whose word this context changes rows. The actor may become known later, in another thread of the request."""

    actor: str
    request: str | None = None


_acting: ContextVar[Acting | None] = ContextVar("acting", default=None)


@contextmanager
def acting(actor: str, request: str | None = None) -> Iterator[Acting]:
    """Changes of the block, in threads it starts with its context too, are laid to `actor`."""
    found = Acting(actor, request)
    token = _acting.set(found)
    try:
        yield found
    finally:
        _acting.reset(token)


def current() -> Acting:
    """Whoever is acting; outside of any block the person who runs this process, with rights to the database."""
    return _acting.get() or Acting(f"operator:{_user()}")


def write(
    session: Session,
    tenant: str | None,
    action: str,
    object_id: str,
    data: dict[str, Any] | None = None,
    actor: str | None = None,
) -> None:
    """One entry, committed or rolled back with the change. `tenant` is whose the object is (None: the installation's);
    `action` is <kind>.<verb>; `data` holds numbers, names and ids: never a secret, never what a file contains."""
    who = current()
    session.add(
        Audit(
            id=new_id("audit-"), tenant_id=tenant, actor=actor or who.actor, action=action, object=object_id,
            request=who.request, data=data,
        )
    )  # fmt: skip


def page(tenant: str, session: Session, *, after: str | None = None, limit: int = 20) -> tuple[list[Audit], bool]:
    """Up to `limit` entries of the tenant older than the entry `after`, newest first, and whether more follow.
    Raises UnknownCursor."""
    wanted = select(Audit).where(Audit.tenant_id == tenant).order_by(Audit.at.desc(), Audit.id.desc())
    if after is not None:
        start = select(Audit.at, Audit.id).where(Audit.tenant_id == tenant, Audit.id == after)
        if session.execute(start).first() is None:
            raise UnknownCursor(after)
        wanted = wanted.where(tuple_(Audit.at, Audit.id) < start.scalar_subquery())
    found = session.scalars(wanted.limit(limit + 1)).all()
    return list(found[:limit]), len(found) > limit


def prune(session: Session, days: float) -> int:
    """Deletes the oldest entries that are older than `days`, of all tenants, `PRUNED_AT_ONCE` at most; how many it
    were. 0 days keeps everything."""
    if not days:
        return 0
    ends = func.clock_timestamp() - text("make_interval(secs => :seconds)").bindparams(seconds=days * 86400)
    oldest = select(Audit.id).where(Audit.at < ends).order_by(Audit.at, Audit.id).limit(PRUNED_AT_ONCE)
    gone = session.execute(delete(Audit).where(Audit.id.in_(oldest)).returning(Audit.id)).all()
    return len(gone)


def _user() -> str:
    """Asked of the system: the environment says what one likes. An image's user may have no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
