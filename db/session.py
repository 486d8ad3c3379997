"""Engines and sessions. One request is one transaction: `with factory.begin() as session`. Knows no table."""

import select
from functools import lru_cache

import psycopg
from psycopg import Connection as PgConnection
from psycopg.errors import IdleInTransactionSessionTimeout
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InvalidatePoolError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

CONNECT_SECONDS = 5
IDLE_SECONDS = 60  # between two statements of a transaction; who administers the database may have set it otherwise


def normal_url(url: str) -> str:
    """`url` with the driver spelled out: `postgres://` and `postgresql://` become `postgresql+psycopg://`."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"
    return url


def as_role(url: str, role: str, password: str, database: str | None = None) -> str:
    """`url` for another role, percent-encoded where its password needs it, and for another `database` where given."""
    other = make_url(normal_url(url)).set(username=role, password=password)
    return (other.set(database=database) if database else other).render_as_string(hide_password=False)


def make_engine(url: str, pool_size: int = 10) -> Engine:
    """A pooled engine that notices connections a database restart has cut, before a transaction is put on one.

    An idle connection to which the server has said something has mostly been cut, and is asked whether it lives; one
    that is silent is not: the answer would be a round trip old when the transaction begins. A peer that went without a
    word is found by keepalives within eleven seconds, and until then by the first statement, as it would be by asking.

    A transaction that says nothing for IDLE_SECONDS is over, and its next statement raises OperationalError: who is cut
    off in the middle of one, or stands still, keeps no row from others for longer.
    """
    engine = create_engine(
        make_url(normal_url(url)),
        hide_parameters=True,  # a failed statement must not put a tenant's bytes into a log
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=CONNECT_SECONDS,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            # A lost peer must not hold a request or a step for the kernel's default of two hours.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,  # milliseconds; keepalives do not look while something sent is unanswered
            "application_name": "onward",
        },
    )
    event.listen(engine, "connect", _bound)
    event.listen(engine, "checkout", _alive)
    event.listen(engine, "handle_error", _as_lost)
    return engine


@lru_cache
def sessions(url: str) -> sessionmaker[Session]:
    """The session factory of `url`, one engine a process. Rows stay readable after commit."""
    return sessionmaker(make_engine(url), expire_on_commit=False)


def _bound(connection: PgConnection[object], _: object) -> None:
    """By a statement, not a startup option: poolers refuse those. What a role, a database or the URL says stays."""
    connection.autocommit = True
    connection.execute(
        "SELECT set_config(name, %s, false) FROM pg_settings"
        " WHERE name = 'idle_in_transaction_session_timeout' AND setting = '0'",
        [f"{IDLE_SECONDS}s"],
    )
    connection.autocommit = False


def _alive(connection: PgConnection[object], *_: object) -> None:
    """Raises InvalidatePoolError, upon which the pool makes a new one, and takes none that is as old."""
    try:
        if _silent(connection):
            return
        connection.execute("SELECT 1")
        connection.rollback()
    except psycopg.Error as error:
        raise InvalidatePoolError from error


def _silent(connection: PgConnection[object]) -> bool:
    """Whether nothing came from the server since the last transaction: not its end, no error of the socket."""
    socket = select.poll()
    socket.register(connection.fileno(), select.POLLIN)
    return not socket.poll(0)


def _as_lost(context: ExceptionContext) -> None:
    """The driver counts it among internal errors; to who tries again it is a lost connection like any other."""
    error = context.original_exception
    if isinstance(error, IdleInTransactionSessionTimeout):
        raise OperationalError(
            context.statement, context.parameters, error, hide_parameters=True, connection_invalidated=True
        ) from error
