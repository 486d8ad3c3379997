"""The roles of an installation: made where they miss, given passwords. They are the cluster's, shared by its databases.

Knows their names and how they belong together, no table.
"""

from collections.abc import Mapping

from psycopg import Connection as PgConnection
from psycopg import sql
from sqlalchemy import Connection, text

from db.security import API, RETENTION, SCHEDULER, WORKER
from db.session import make_engine

LOGINS = (API, WORKER)
BOUND = "NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION"
# NOINHERIT: the rights of the first two, and their policies, hold only where a transaction has become one of them.
MAKE = {
    SCHEDULER: f"CREATE ROLE {SCHEDULER} NOLOGIN {BOUND}",
    RETENTION: f"CREATE ROLE {RETENTION} NOLOGIN {BOUND}",
    API: f"CREATE ROLE {API} LOGIN NOINHERIT {BOUND}",
    WORKER: f"CREATE ROLE {WORKER} LOGIN NOINHERIT {BOUND}",
}
BELONG = {
    pair: f"GRANT {pair[0]} TO {pair[1]}" for pair in ((SCHEDULER, API), (SCHEDULER, WORKER), (RETENTION, WORKER))
}
BY_HAND = "".join(f"{statement};\n" for statement in (*MAKE.values(), *BELONG.values()))
_TRY = "DO $$ BEGIN {}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"


class MissingRoles(RuntimeError):
    """The roles are not there and this one may not make them; the message is the SQL for one who may."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"this role may not make or join {', '.join(names)}. Let a superuser run once:\n{BY_HAND}")


class UnsafeRoles(RuntimeError):
    """A role of this name is there already and is not bound by policies."""


def create(connection: Connection) -> None:
    """Makes what misses. Databases of one cluster may do so at once: who comes second waits, and finds it made.

    Raises MissingRoles, UnsafeRoles."""
    missing = [name for name in MAKE if not _exists(connection, name)]
    if missing and not _may_create(connection):
        raise MissingRoles(missing)
    for name in missing:
        connection.execute(text(_TRY.format(MAKE[name])))
    # Looked for only now: who waited above finds what the other has made, and may have no right to make it again.
    apart = [pair for pair in BELONG if not _belongs(connection, *pair)]
    if not all(_may_grant(connection, role) for role, _ in apart):
        raise MissingRoles([login for _, login in apart])
    for pair in apart:
        connection.execute(text(_TRY.format(BELONG[pair])))
    wrong = connection.scalar(
        text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:names) AND (rolsuper OR rolbypassrls OR"
             " (rolinherit AND rolcanlogin))"),
        {"names": list(MAKE)},
    )  # fmt: skip
    if wrong is not None:
        raise UnsafeRoles(f"the role {wrong} exists, and is a superuser, bypasses row-level security or has INHERIT")


def admit_owner(connection: Connection) -> None:
    """Policies name the owner of the database that they were made in: one that was restored under another owner gets
    its own. Nothing where the owner is another role, or the policies are right."""
    theirs = """
        SELECT format('ALTER POLICY owner ON %s TO CURRENT_USER', polrelid::regclass) FROM pg_policy p
        JOIN pg_class c ON c.oid = p.polrelid
        WHERE polname = 'owner' AND pg_get_userbyid(c.relowner) = current_user AND polroles <> ARRAY[c.relowner]
    """
    for statement in connection.scalars(text(theirs)).all():
        connection.execute(text(statement))


def set_passwords(owner_url: str, passwords: Mapping[str, str]) -> None:
    """Gives roles their passwords (plain, by name), hashed before they leave this process: no log has them."""
    engine = make_engine(owner_url, pool_size=1)
    try:
        with engine.begin() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, PgConnection)
            for role, password in passwords.items():
                password = password.rstrip("\r\n")  # a file's last newline is no part of it
                hashed = driver.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
                driver.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(hashed)))
    finally:
        engine.dispose()


def _exists(connection: Connection, name: str) -> bool:
    return connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name}) is not None


def _belongs(connection: Connection, role: str, login: str) -> bool:
    found = text("SELECT pg_has_role(l.oid, r.oid, 'MEMBER') FROM pg_roles l, pg_roles r"
                 " WHERE l.rolname = :login AND r.rolname = :role")  # fmt: skip
    return bool(connection.scalar(found, {"login": login, "role": role}))


def _may_create(connection: Connection) -> bool:
    own = text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    return bool(connection.scalar(own))


def _may_grant(connection: Connection, role: str) -> bool:
    own = text("SELECT pg_has_role(:role, 'MEMBER WITH ADMIN OPTION')")
    return bool(connection.scalar(own, {"role": role})) or (_is_old(connection) and _may_create(connection))


def _is_old(connection: Connection) -> bool:
    """Before 16, CREATEROLE is the right to grant any role."""
    return int(connection.scalar(text("SHOW server_version_num")) or 0) < 160000
