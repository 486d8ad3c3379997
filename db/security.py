"""In whose name a transaction reads and writes, and which role may: what row-level security goes by. Knows no table.

A transaction is on one tenant's rows (`transaction`), on what a scheduler needs of all (`across`), or on nobody's. Each
ends with its transaction: a connection that goes back to its pool is nobody's.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from db.one_trip import Read

API, WORKER = "onward_api", "onward_worker"  # the roles that processes log in as
# What they may become for one transaction across tenants, neither of which can log in:
SCHEDULER = "onward_scheduler"  # both; columns that tell no content
RETENTION = "onward_retention"  # a worker; deletes what has ended and nothing needs

log = structlog.get_logger("db.security")

TENANT = "onward.tenant"  # the setting that policies read; unset, or empty, is nobody
KEY = "onward.key"  # the SHA-256 (hex) of the key that was sent: it shows the key's own row and its tenant

_SET = text("SELECT set_config(:name, :value, true)")
# Whoever owns the tables sees them all without changing its role, and may lack the right to change it.
_BECOME = text(
    "SELECT set_config('role', :role, true) FROM pg_class"
    " WHERE oid = to_regclass('jobs') AND NOT pg_has_role(relowner, 'USAGE')"
)
_UNBOUND = text(
    "SELECT CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolbypassrls THEN 'has BYPASSRLS'"
    " WHEN pg_has_role(c.relowner, 'MEMBER') THEN 'is, or may become, the owner of the tables' END"
    " FROM pg_roles r, pg_class c WHERE r.rolname = session_user AND c.oid = to_regclass('jobs')"
)

_OPERATES = text(
    "SELECT coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('jobs')), true)"
)


_SET_FIRST = Read.of(_SET)


@contextmanager
def transaction(factory: sessionmaker[Session], tenant: str) -> Iterator[Session]:
    """One transaction on the rows of `tenant` (its id), committed at its end; rolled back by any exception."""
    with factory.begin() as session:
        enter(session, tenant)
        yield session


@contextmanager
def across(factory: sessionmaker[Session]) -> Iterator[Session]:
    """One transaction on what a scheduler may know of every tenant's rows, and on no content."""
    with factory.begin() as session:
        look_across(session)
        yield session


@contextmanager
def forgetting(factory: sessionmaker[Session]) -> Iterator[Session]:
    """One transaction that may delete what every tenant's ended jobs have left, and reads no more than it takes."""
    with factory.begin() as session:
        _become(session, RETENTION)
        yield session


def enter(session: Session, tenant: str) -> None:
    """From here to the end of its transaction `session` is on the rows of `tenant`."""
    session.execute(_SET, {"name": TENANT, "value": tenant})


def present(session: Session, digest: bytes) -> None:
    """From here to the end of its transaction `session` sees the key whose SHA-256 is `digest`, and its tenant."""
    session.execute(_SET, {"name": KEY, "value": digest.hex()})


def entering(tenant: str) -> Read:
    """`enter`, for reads that are sent together: the first of them."""
    return _SET_FIRST.with_(name=TENANT, value=tenant)


def presenting(digest: bytes) -> Read:
    """`present`, for reads that are sent together: the first of them."""
    return _SET_FIRST.with_(name=KEY, value=digest.hex())


def look_across(session: Session) -> None:
    """From here to the end of its transaction `session` is the scheduler's, unless its role owns the tables anyway."""
    _become(session, SCHEDULER)


def _become(session: Session, role: str) -> None:
    session.execute(_BECOME, {"role": role})


def unbound(session: Session) -> str | None:
    """Why policies do not bind this connection's role, such as "is a superuser"; None where they do, and where there
    are no tables yet."""
    found: str | None = session.scalar(_UNBOUND)
    return found


def operates(session: Session) -> bool:
    """Whether this connection's role is the owner of the tables, or one with all its rights: an operator's."""
    return bool(session.scalar(_OPERATES))


def warn_unbound(factory: sessionmaker[Session]) -> None:
    """A line in the log where policies do not bind this process. Silent where the database is away."""
    try:
        with factory.begin() as session:
            why = unbound(session)
    except SQLAlchemyError:
        return
    if why is not None:
        log.warning("row-level security does not bind this process", because=f"its role {why}", roles=[API, WORKER])
