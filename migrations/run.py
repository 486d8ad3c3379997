"""Upgrades and downgrades a database from code: a transaction a revision, one process at a time. Knows no table.

`python -m migrations.run MESSAGE` writes a new revision from what db/tables/ has over ONWARD_DATABASE_URL.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from db.session import make_engine
from db.settings import get_settings
from migrations.roles import admit_owner

ADVISORY_LOCK = 0x6F6E7761726400  # "onward": any number of processes may ask for an upgrade at once


def upgrade(database_url: str, revision: str = "head") -> None:
    """Brings the database to `revision`. Nothing where it is there already, but that a restored one's policies are made
    to name its owner."""
    with _config(database_url) as config:
        command.upgrade(config, revision)
        connection: Connection = config.attributes["connection"]
        admit_owner(connection)
        connection.commit()


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


@contextmanager
def _config(database_url: str) -> Iterator[Config]:
    engine = make_engine(database_url, pool_size=1)
    try:
        with engine.connect() as connection:
            connection.execute(
                text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK}
            )  # ends with the connection
            connection.commit()
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
            config.attributes["connection"] = connection
            yield config
    finally:
        engine.dispose()


if __name__ == "__main__":
    with _config(get_settings().database_url) as new:
        command.revision(new, " ".join(sys.argv[1:]), autogenerate=True)
