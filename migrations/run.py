"""Upgrades and downgrades a database from code: one transaction, one process at a time. Knows no table.

`python -m migrations.run MESSAGE` writes a new revision from what db/tables/ has over ONWARD_DATABASE_URL.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

from db.session import make_engine
from db.settings import get_settings

ADVISORY_LOCK = 0x6F6E7761726400  # "onward": any number of processes may ask for an upgrade at once
PATIENCE_SECONDS, AGAIN_SECONDS = 60.0, 0.01


def upgrade(database_url: str, revision: str = "head") -> None:
    """Brings the database to `revision`. Nothing where it is there already."""
    with _config(database_url) as config:
        connection = config.attributes["connection"]
        if current(connection) not in (None, head() if revision == "head" else revision):
            _lock_all(connection)
        command.upgrade(config, revision)


def downgrade(database_url: str, revision: str = "base") -> None:
    """Takes the database back to `revision`; the tables that came later go, with all they hold."""
    with _config(database_url) as config:
        command.downgrade(config, revision)


@lru_cache
def head() -> str:
    """The newest revision that this code knows."""
    found = ScriptDirectory(str(Path(__file__).parent)).get_current_head()
    assert found is not None
    return found


def current(connection: Connection) -> str | None:
    """The revision the database is at; None where it never was migrated."""
    exists = connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    return connection.scalar(text("SELECT version_num FROM alembic_version")) if exists else None


def _lock_all(connection: Connection) -> None:
    """Every table there is, before the first is changed: all at once or none, and never waited for with one in hand.
    Else what serves meanwhile, and locks tables in orders of its own, and this would wait for each other.

    But for files' chunks, which an upload holds for as long as it takes. Raises OperationalError after some seconds.
    """
    names = [name for name in inspect(connection).get_table_names() if name != "file_chunks"]
    wanted = text(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE NOWAIT")
    patient_until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with connection.begin_nested():
                connection.execute(wanted)
            return
        except OperationalError:
            if time.monotonic() > patient_until:
                raise
            time.sleep(AGAIN_SECONDS)


@contextmanager
def _config(database_url: str) -> Iterator[Config]:
    engine = make_engine(database_url, pool_size=1)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
            config.attributes["connection"] = connection
            yield config
    finally:
        engine.dispose()


if __name__ == "__main__":
    with _config(get_settings().database_url) as new:
        command.revision(new, " ".join(sys.argv[1:]), autogenerate=True)
