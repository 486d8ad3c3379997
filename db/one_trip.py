"""Reads of one transaction, sent together: one round trip to the database, where each would wait for the one before.
Knows no table.

A round trip is two processes woken, which on a machine whose cores an engine has is most of what a small read costs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Read:
    """A statement in the driver's own words, and what is `given` for its parameters."""

    sql: str
    given: Mapping[str, Any]

    @classmethod
    def of(cls, statement: ClauseElement) -> Self:
        """Compiled: once, at import, for it takes as long as the database does."""
        compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
        return cls(str(compiled), dict(compiled.params))

    def with_(self, **given: Any) -> "Read":
        return Read(self.sql, {**self.given, **given})


def rows(sessions: sessionmaker[Session], *reads: Read) -> list[list[tuple[Any, ...]]]:
    """The rows of each, all of one transaction, which is over. On a connection that turns out to be lost they are tried
    once more, on another: they change nothing. Raises sqlalchemy's DBAPIErrors."""
    try:
        return _sent(sessions, reads)
    except DBAPIError as error:
        if not error.connection_invalidated or error.orig is None:
            raise
    return _sent(sessions, reads)


def _sent(sessions: sessionmaker[Session], reads: tuple[Read, ...]) -> list[list[tuple[Any, ...]]]:
    with sessions() as session:
        connection = session.connection()
        driver: Any = connection.connection.driver_connection
        try:
            driver.autocommit = True  # what is sent until the pipeline's one Sync is a transaction, without a BEGIN
            with driver.pipeline():
                cursors = [driver.execute(read.sql, read.given) for read in reads]
            return [cursor.fetchall() for cursor in cursors]
        except psycopg.Error as error:
            told: Any = DBAPIError.instance(
                None, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=bool(driver.closed)
            )
            raise told from error
        finally:
            if driver.info.transaction_status is TransactionStatus.IDLE:
                driver.autocommit = False
            else:  # lost, or in a state that nobody is to find it in
                connection.invalidate()
