"""Upgrade, downgrade, and: what the migrations build is what the models say."""

import threading

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from db.session import make_engine
from db.tables import Base
from migrations.run import downgrade, upgrade


def test_models_equal_migrations(empty_database_url):
    upgrade(empty_database_url)
    with make_engine(empty_database_url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


CATALOGUE = """
    SELECT r.relname || ' ' || c.conname, pg_get_constraintdef(c.oid)
      FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid WHERE r.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
"""


def test_constraints_and_indexes_equal_to_the_last_word(empty_database_url):
    """compare_metadata looks at no check, no deferral and no partial index."""
    downgrade(empty_database_url)
    engine = make_engine(empty_database_url)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        wanted = dict(connection.execute(text(CATALOGUE)).all())
        Base.metadata.drop_all(connection)
    upgrade(empty_database_url)
    with engine.connect() as connection:
        found = dict(connection.execute(text(CATALOGUE)).all())
    engine.dispose()
    assert len([name for name in wanted if " ck_" in name]) > 20
    version = {name for name in wanted.keys() | found.keys() if "alembic_version" in name}
    assert {k: v for k, v in found.items() if k not in version} == {k: v for k, v in wanted.items() if k not in version}


def test_downgrade_leaves_nothing_and_upgrade_can_follow(empty_database_url):
    upgrade(empty_database_url)
    downgrade(empty_database_url)
    engine = make_engine(empty_database_url)
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    upgrade(empty_database_url)
    assert set(Base.metadata.tables) < set(inspect(engine).get_table_names())
    engine.dispose()


def test_what_was_there_before_is_numbered_and_has_its_shares(empty_database_url):
    downgrade(empty_database_url)
    upgrade(empty_database_url, "0003")
    engine = make_engine(empty_database_url)
    with engine.begin() as connection:
        for statement in BEFORE.split(";"):
            connection.execute(text(statement))
    upgrade(empty_database_url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO events (job_id, tenant_id, message) VALUES ('q', 't', 'new')"))
        numbers = connection.execute(text("SELECT job_id, number FROM events ORDER BY id")).all()
        shares = connection.execute(text("SELECT model, tenant_id, finish FROM shares")).all()
    engine.dispose()
    assert numbers == [("q", 1), ("e", 1), ("q", 2), ("q", 3), ("e", 2), ("q", 4)]
    assert shares == [("m", "t", 0.0)]
    downgrade(empty_database_url)


BEFORE = """
    INSERT INTO tenants (id, name) VALUES ('t', 't'), ('u', 'u');
    INSERT INTO files (id, tenant_id, purpose, filename, format, bytes, sha256)
    SELECT 'f' || id, id, 'fine-tune', 'f', 'chat', 1, '' FROM tenants;
    INSERT INTO jobs (id, tenant_id, model, spec, request, request_hash, training_file, total_steps, price_tokens,
                      state, finished_at)
    VALUES ('q', 't', 'm', '{}', '{}', '', 'ft', 1, 1, 'queued', NULL),
           ('e', 'u', 'm', '{}', '{}', '', 'fu', 1, 1, 'cancelled', now());
    INSERT INTO events (job_id, tenant_id, message)
    VALUES ('q', 't', '1'), ('e', 'u', '1'), ('q', 't', '2'), ('q', 't', '3'), ('e', 'u', '2')
"""


def test_processes_that_start_together_may_all_upgrade(empty_database_url):
    downgrade(empty_database_url)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            upgrade(empty_database_url)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
