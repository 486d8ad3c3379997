"""Real PostgreSQL and Valkey, started once a session when a test first asks, and a fresh database for every module."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

import db.session
from cli.local import ownership
from cli.local import servers as servers_of_wheels
from cli.local.embedded import Embedded, Urls
from db.ids import new_id
from db.session import make_engine
from migrations.roles import set_passwords
from migrations.run import upgrade
from tests.capability import pytest_terminal_summary
from tests.stores import s3_server
from tests.waiting import HANG

__all__ = ("pytest_terminal_summary", "s3_server")  # a hook, and a fixture
TEMPLATE = "migrated"
# Machines differ in speed and are shared: no example has a deadline, and the tests give up no server early.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
servers_of_wheels.START_SECONDS = servers_of_wheels.STOP_SECONDS = ownership.LEFTOVER_SECONDS = HANG
db.session.CONNECT_SECONDS = int(HANG)


@pytest.fixture(scope="session")
def servers() -> Iterator[Embedded]:
    """Both servers, in a folder that the database's own user can reach, gone with the session."""
    home = Path(tempfile.mkdtemp(prefix="onward-tests-"))
    home.chmod(0o711)
    embedded = Embedded(home, durable=False)
    embedded.start()
    _execute(embedded, f"CREATE DATABASE {TEMPLATE}")
    urls = embedded.urls_of(TEMPLATE)
    upgrade(urls.database_url)
    set_passwords(urls.database_url, urls.passwords)
    yield embedded
    embedded.stop()
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def empty_database_url(servers: Embedded) -> Iterator[str]:
    """A database without one table."""
    with _database(servers, "template1") as urls:
        yield urls.database_url


@pytest.fixture(scope="module")
def urls(servers: Embedded) -> Iterator[Urls]:
    """This module's own migrated database, without one row, as each role reaches it."""
    with _database(servers, TEMPLATE) as made:
        yield made


@pytest.fixture(scope="module")
def database_url(urls: Urls) -> str:
    """The owner's: for what a test sets up and looks at, not for what it tests."""
    return urls.database_url


@pytest.fixture(scope="session")
def redis_url(servers: Embedded) -> str:
    """The Valkey all tests share: queues are told apart by model names."""
    return servers.valkey.url


@pytest.fixture(scope="module")
def factory(database_url: str) -> Iterator[sessionmaker[Session]]:
    engine = make_engine(database_url)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


@pytest.fixture(scope="module")
def as_api(urls: Urls) -> Iterator[sessionmaker[Session]]:
    """Sessions as the API's own."""
    engine = make_engine(urls.api_url)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


@pytest.fixture(scope="module")
def as_worker(urls: Urls) -> Iterator[sessionmaker[Session]]:
    """Sessions as a worker's own."""
    engine = make_engine(urls.worker_url)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


@pytest.fixture
def session(factory: sessionmaker[Session]) -> Iterator[Session]:
    """A transaction that is never committed."""
    with factory() as opened:
        yield opened


@contextmanager
def _database(servers: Embedded, template: str) -> Iterator[Urls]:
    name = new_id("test_")
    _execute(servers, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield servers.urls_of(name)
    _execute(servers, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(servers: Embedded, statement: str) -> None:
    engine = make_engine(servers.postgres.url, pool_size=1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
    engine.dispose()
