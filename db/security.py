"""In whose name a transaction reads and writes: the tenant that row-level security lets it see. Knows no table."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

TENANT = "onward.tenant"  # the setting that policies read; unset, or empty, is nobody
_ENTER = text("SELECT set_config(:name, :tenant, true)")


@contextmanager
def transaction(factory: sessionmaker[Session], tenant: str) -> Iterator[Session]:
    """One transaction on the rows of `tenant` (its id), committed at its end; rolled back by any exception."""
    with factory.begin() as session:
        enter(session, tenant)
        yield session


def enter(session: Session, tenant: str) -> None:
    """From here to the end of its transaction `session` is on the rows of `tenant`."""
    session.execute(_ENTER, {"name": TENANT, "tenant": tenant})
