"""Every table of the metadata as every role, in another tenant's name and in nobody's: not one row, not one write."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Table, delete, insert, literal_column, select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.orm import Session, sessionmaker
from structlog.testing import capture_logs

from db import files, security
from db.contract.spec import ParentSpec
from db.security import API, RETENTION, SCHEDULER, WORKER
from db.session import make_engine
from db.tables import ApiKey, Base, Evaluation, Event, Job, JournalStep, Tenant
from db.tenant import adapters, jobs, keys
from db.worker import journal
from db.worker.journal import Evaluated, Step
from tests.db.inserted import a_claim, a_job
from tests.db.owned import TABLES, a_row_everywhere, owner_of

REFUSED = "42501"  # insufficient_privilege: no grant, or a row that no policy lets be
VERBS = ("SELECT", "UPDATE", "DELETE", "INSERT")
CONTENT = {
    "jobs": {"spec", "request", "request_hash", "idempotency_key", "training_file", "validation_file", "error"},
    "tenants": {"name"},
    "journal": {"losses", "job_id", "step"},
    "evaluations": {"loss", "accuracy", "job_id"},
    "adapters": {"id", "name", "path", "sha256", "file_id"},
    "restorations": {"sha256", "error", "bytes"},
}
HIDDEN = (
    "files",
    "file_chunks",
    "results",
    "restored_chunks",
    "events",
    "api_keys",
    "audit",
)  # a scheduler sees none of their columns


@pytest.fixture(scope="module")
def tenants(factory) -> tuple[str, str]:
    with factory.begin() as session:
        return a_row_everywhere(session), a_row_everywhere(session)


def catalogue(session: Session, statement: str) -> dict[str, tuple]:
    return {row[0]: tuple(row[1:]) for row in session.execute(text(statement))}


def test_row_security_is_forced_on_every_table_of_tenants(session):
    assert len(TABLES) >= 9
    found = catalogue(session, "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class")
    missing = [table.name for table in TABLES if found[table.name] != (True, True)]
    assert missing == [], "migrate it: ENABLE and FORCE ROW LEVEL SECURITY, policies and grants (see migration 0007)"
    policies = session.execute(text("SELECT tablename, policyname FROM pg_policies")).all()
    assert {(t.name, policy) for t in TABLES for policy in ("owner", "tenant")} <= {tuple(p) for p in policies}


def test_the_roles_own_nothing_and_are_bound(session):
    roles = catalogue(
        session,
        "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin, rolinherit FROM pg_roles",
    )
    for role in (API, WORKER):
        assert roles[role] == (False, False, False, False, True, False)
    for role in (SCHEDULER, RETENTION):
        assert roles[role][:5] == (False, False, False, False, False)
    owned = text("SELECT count(*) FROM pg_class WHERE pg_get_userbyid(relowner) LIKE 'onward\\_%'")
    assert session.scalar(owned) == 0


def columns_with(session: Session, table: Table, privilege: str) -> list[str]:
    allowed = text("SELECT has_column_privilege(current_user, :table, :name, :privilege)")
    of = {"table": table.name, "privilege": privilege}
    return [c.name for c in table.columns if session.scalar(allowed, of | {"name": c.name})]


def attempts(session: Session, table: Table, whose: str, row: dict) -> Iterator[tuple[str, int | None]]:
    """Each verb tried on the rows of `whose`: how many rows it reached, None where the database refused it."""
    for verb in VERBS:
        with session.begin_nested() as savepoint:
            try:
                yield verb, reached(session, table, whose, verb, row)
            except DBAPIError as error:
                if error.orig.sqlstate != REFUSED:
                    raise
                yield verb, None
            finally:
                if savepoint.is_active:
                    savepoint.rollback()


def reached(session: Session, table: Table, whose: str, verb: str, row: dict) -> int:
    if verb == "INSERT":
        return session.execute(insert(table).values(row)).rowcount
    # The rows by name where the role may read whose they are, and all that it sees where it may not.
    readable = owner_of(table).name in columns_with(session, table, "SELECT")
    where = f"WHERE {owner_of(table).name} = :whose" if readable else ""
    if verb == "SELECT":
        columns = columns_with(session, table, "SELECT") or ["1"]
        return len(
            session.execute(text(f"SELECT {', '.join(columns)} FROM {table.name} {where}"), {"whose": whose}).all()
        )
    if verb == "DELETE":
        return session.execute(text(f"DELETE FROM {table.name} {where}"), {"whose": whose}).rowcount
    column = (columns_with(session, table, "UPDATE") or [owner_of(table).name])[0]
    return session.execute(text(f"UPDATE {table.name} SET {column} = {column} {where}"), {"whose": whose}).rowcount


def rows_of(factory: sessionmaker[Session], tenant: str) -> dict[str, dict]:
    with factory.begin() as session:
        wanted = {t.name: select(t).where(owner_of(t) == tenant) for t in TABLES}
        return {name: dict(session.execute(each).mappings().first()) for name, each in wanted.items()}


def test_no_row_is_reached_in_anothers_name_or_nobodys(factory, as_api, as_worker, tenants, capsys):
    victim, other = tenants
    rows, tried, leaks = rows_of(factory, victim), 0, []
    for role, sessions in ((API, as_api), (WORKER, as_worker)):
        for name in (other, "", None, "ten_none", "'", "%"):
            for table in TABLES:
                with sessions() as session:
                    if name is not None:
                        security.enter(session, name)
                    for verb, count in attempts(session, table, victim, rows[table.name]):
                        tried += 1
                        if count:
                            leaks.append((role, name, table.name, verb, count))
    with capsys.disabled():
        print(f"\ncross-tenant attempts on tables: {len(leaks)} of {tried} reached a row")
    assert leaks == []
    assert tried == 2 * 6 * len(TABLES) * len(VERBS)


def test_in_its_own_name_a_tenant_sees_its_rows_so_that_the_test_above_is_none_of_empty_tables(
    as_api, as_worker, tenants
):
    for sessions, blind in ((as_api, {"journal"}), (as_worker, {"api_keys"})):
        for tenant in tenants:
            with security.transaction(sessions, tenant) as session:
                seen = {
                    table.name
                    for table in TABLES
                    if columns_with(session, table, "SELECT") and reached(session, table, tenant, "SELECT", {})
                }
            assert blind.isdisjoint(seen)
            assert {"tenants", "files", "file_chunks", "jobs", "leases", "events", "evaluations", "adapters"} <= seen


def test_a_row_cannot_be_given_to_another(as_api, as_worker, tenants):
    victim, other = tenants
    for sessions in (as_api, as_worker):
        for table in TABLES:
            with sessions() as session:
                security.enter(session, other)
                change = text(f"UPDATE {table.name} SET {owner_of(table).name} = :victim")
                with pytest.raises(ProgrammingError) as refused:
                    session.execute(change, {"victim": victim})
                assert refused.value.orig.sqlstate == REFUSED


def test_what_was_accepted_is_rewritten_by_no_process(as_api, as_worker, tenants):
    for sessions in (as_api, as_worker):
        with security.transaction(sessions, tenants[0]) as session:
            may = set(columns_with(session, Job.__table__, "UPDATE"))
        # What rows decide the API may write until it is decided: a trigger holds it to that (tests/api/jobs).
        decides = {"spec", "request", "price_tokens", "total_steps"} if sessions is as_api else set()
        assert may & {"spec", "request", "price_tokens", "total_steps"} == decides
        assert may.isdisjoint({"id", "tenant_id", "model", "training_file", "seed", "created_at"})
        assert {"state", "wish"} <= may


def test_no_process_that_serves_changes_a_tenants_limits_or_its_keys(as_api, as_worker, tenants):
    limits = {"name", "tenant_class", "weight", "token_quota", "max_jobs"}
    for sessions in (as_api, as_worker):
        with security.transaction(sessions, tenants[0]) as session:
            assert limits.isdisjoint(columns_with(session, Tenant.__table__, "UPDATE"))
            assert {"tenant_id", "hash"}.isdisjoint(columns_with(session, ApiKey.__table__, "UPDATE"))


def test_a_scheduler_sees_whose_turn_it_is_and_no_content(as_api, as_worker, tenants):
    for sessions in (as_api, as_worker):
        with security.across(sessions) as session:
            assert session.scalar(text("SELECT current_user")) == SCHEDULER
            assert set(session.scalars(select(Job.tenant_id))) >= set(tenants)
            for table in TABLES:
                seen = set(columns_with(session, table, "SELECT"))
                assert seen.isdisjoint(CONTENT.get(table.name, ())), table.name
                assert not (table.name in HIDDEN and seen), table.name
                changed = set(columns_with(session, table, "UPDATE"))
                assert changed <= {"rung_at", "expires_at", "finish"}, table.name
                for verb in ("INSERT", "DELETE"):
                    may = text("SELECT has_table_privilege(current_user, :table, :verb)")
                    assert not session.scalar(may, {"table": table.name, "verb": verb}), (table.name, verb)


def test_a_condition_on_the_tenant_that_is_wrong_or_forgotten_finds_nothing(factory, as_api, tenants):
    """What the policies are for: here the code asks for the rows of one tenant in the name of another, or of nobody."""
    victim, other = tenants
    rows = rows_of(factory, victim)
    job, adapter = (rows[name]["id"] for name in ("jobs", "adapters"))
    file = rows["jobs"]["training_file"]  # whatever row comes first of those that nothing orders

    def found(session: Session) -> list:
        return [
            jobs.get(victim, session, job), *jobs.page(victim, session)[0], *jobs.events(victim, session, job)[0],
            *jobs.checkpoints(victim, session, job)[0], files.get(victim, session, file),
            files.chunk(victim, session, file, 0), *files.page(victim, session)[0], *files.read(session, file),
            adapters.get(victim, session, adapter), *adapters.page(victim, session)[0],
        ]  # fmt: skip

    with security.transaction(as_api, victim) as session:
        assert None not in found(session)
    for name in (other, "", None):
        with as_api.begin() as session:
            if name is not None:
                security.enter(session, name)
            assert set(found(session)) == {None}


def test_what_forgets_deletes_of_ended_jobs_only_and_no_receipt(factory, as_api, as_worker, tenants):
    """Whatever it is told to delete: here everything."""
    with factory.begin() as session:
        running = session.scalars(select(Job.id).where(Job.tenant_id == tenants[0], Job.state == "running")).one()
        failed = a_job(session, tenants[0], steps=1)
        claim = a_claim(session, failed)
        journal.flush(session, claim, [Step(0, [0.5], 7)], [Evaluated(0, 0.5, 1.0, 1, 3)])
        journal.fail(session, claim, "x", "no adapter")
        parent = a_job(session, tenants[0], steps=1)
        claim = a_claim(session, parent)
        journal.flush(session, claim, [Step(0, [0.5], 7)], [Evaluated(0, 0.5, 1.0, 1, 3)])
        journal.fail(session, claim, "x", "no adapter, and a job goes on from it")
        a_job(session, tenants[0], parent=ParentSpec(job=parent.id, step=1, sha256="0" * 64))
    kinds = (Event, JournalStep, Evaluation)

    def left() -> dict[str, set[str]]:
        with factory.begin() as session:
            return {kind.__tablename__: set(session.scalars(select(kind.job_id))) for kind in kinds}

    before = left()
    with security.forgetting(as_worker) as session:
        assert session.scalar(text("SELECT current_user")) == RETENTION
        for table in TABLES:
            assert set(columns_with(session, table, "SELECT")).isdisjoint(
                CONTENT.get(table.name, set()) - {"job_id", "step", "id"}
            )
        for kind in kinds:
            session.execute(delete(kind))
    after = left()
    assert after["journal"] == before["journal"] - {failed.id}
    assert after["evaluations"] == before["evaluations"] - {failed.id}
    assert running in after["events"]
    assert failed.id not in after["events"]
    with pytest.raises(ProgrammingError, match="permission denied"), security.forgetting(as_api):
        pass


def test_a_key_shows_itself_and_its_tenant_and_nothing_else(factory, as_api, tenants):
    with factory.begin() as session:
        _, secret = keys.create_key(session, tenants[0])
    with as_api.begin() as session:
        assert keys.authenticate(session, secret).tenant.id == tenants[0]
        assert len(session.execute(text("SELECT id FROM api_keys")).all()) == 1
        assert session.scalars(text("SELECT id FROM tenants")).all() == [tenants[0]]
        for table in TABLES:
            if table.name not in ("tenants", "api_keys", "journal"):
                assert session.scalar(select(literal_column("1")).select_from(table)) is None
    with as_api.begin() as session:
        assert keys.authenticate(session, secret + "x") is None
        assert session.execute(text("SELECT id FROM api_keys")).all() == []


def test_a_connection_that_returns_to_its_pool_is_nobodys(urls, tenants):
    engine = make_engine(urls.api_url, pool_size=1)
    engine.pool._max_overflow = 0
    sessions = sessionmaker(engine)

    def nobody() -> None:
        with sessions.begin() as session:
            assert session.scalar(text("SELECT current_user")) == API
            for name in (security.TENANT, security.KEY):
                assert session.scalar(text("SELECT current_setting(:name, true)"), {"name": name}) in (None, "")
            assert session.scalars(select(Job.id)).all() == []

    def backend() -> int:
        with sessions.begin() as session:
            return session.scalar(text("SELECT pg_backend_pid()"))

    first = backend()
    with security.transaction(sessions, tenants[0]) as session:
        assert session.scalars(select(Job.id)).all()
    nobody()
    with pytest.raises(ZeroDivisionError), security.transaction(sessions, tenants[0]):
        _ = 1 // 0
    nobody()
    with pytest.raises(DBAPIError), security.transaction(sessions, tenants[0]) as session:
        session.execute(text("SELECT 1/0"))
    nobody()
    with security.across(sessions) as session:
        security.present(session, b"x")
        assert session.scalars(select(Job.id)).all()
    nobody()
    assert backend() == first, "it was one connection all along"
    engine.dispose()


def test_the_setting_is_read_once_a_statement(as_api, tenants):
    with security.transaction(as_api, tenants[0]) as session:
        plan = "\n".join(session.scalars(text("EXPLAIN (VERBOSE) SELECT id FROM jobs")))
    assert plan.count("current_setting") == 1
    assert "InitPlan" in plan
    assert "SubPlan" not in plan.replace("InitPlan", "")


def test_a_role_says_whether_it_is_bound_and_a_process_that_is_not_warns(factory, as_api, as_worker):
    for sessions, why in ((as_api, None), (as_worker, None), (factory, "is a superuser")):
        with sessions.begin() as session:
            assert security.unbound(session) == why
        with capture_logs() as lines:
            security.warn_unbound(sessions)
        assert [line["because"] for line in lines] == ([f"its role {why}"] if why else [])


def test_tables_without_tenants_are_known(session):
    """A new one must be thought about: nothing in it may be a tenant's."""
    rest = {t.name for t in Base.metadata.sorted_tables} - {t.name for t in TABLES}
    assert rest <= {"workers", "clocks", "pruned", "installation", "profiles"}
