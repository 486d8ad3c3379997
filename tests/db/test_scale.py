"""Twenty thousand jobs: no request and no sweep reads them all."""

import json
from collections.abc import Callable

import pytest
from sqlalchemy import event, text

from db import files, outlook
from db.retention import Keep, prune
from db.sweep import sweep
from db.tables import Job
from db.tenant import jobs
from db.tenant.waiting import waiting
from db.worker.candidates import candidates
from tests.db.inserted import MODEL, a_claim, a_file, a_job, a_tenant, a_worker

COUNT = 20_000
MANY = text("""
    INSERT INTO jobs (id, tenant_id, model, spec, request, request_hash, training_file, total_steps, price_tokens,
                      created_at, state, finished_at)
    SELECT 'ftjob-x' || n, tenant_id, model, spec, jsonb_build_object('metadata', jsonb_build_object('n', n || '')),
           md5(n::text), training_file, total_steps, price_tokens,
           now() - n * interval '1 ms', CASE WHEN n % 2 = 0 THEN 'queued' ELSE 'cancelled' END,
           CASE WHEN n % 2 = 0 THEN NULL ELSE now() END
      FROM jobs, generate_series(1, :count) n WHERE id = :job
""")


@pytest.fixture(scope="module")
def crowded(factory):
    """A tenant with 10,000 queued and as many ended jobs, and its training file; another tenant has one."""
    with factory.begin() as session:
        tenant = a_tenant(session, max_jobs=10 * COUNT, token_quota=10**12)
        file = a_file(session, tenant)
        first = a_job(session, tenant, file)
        a_job(session, a_tenant(session))
        a_worker(session)
        session.execute(MANY, {"count": COUNT, "job": first.id})
    engine = factory.kw["bind"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return tenant, file


def rows_read(plan: dict, table: str) -> float:
    """Rows of `table` that a plan touched, filtered ones among them; index-only reads of one covering index aside."""
    own = 0.0
    if plan.get("Relation Name") == table and plan["Node Type"] != "Index Only Scan":
        own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        own *= plan["Actual Loops"]
    return own + sum(rows_read(child, table) for child in plan.get("Plans", []))


ACTS: dict[str, Callable] = {
    "create": lambda session, tenant, file: a_job(session, tenant, file),
    "first page": lambda session, tenant, _: jobs.page(tenant, session, limit=20),
    "later page": lambda session, tenant, _: jobs.page(tenant, session, after="ftjob-x9000", limit=20),
    "candidates": lambda session, _, __: candidates(session, MODEL),
    "claim": lambda session, _, __: a_claim(session, session.get_one(Job, "ftjob-x8000")),
    "cancel": lambda session, tenant, _: jobs.cancel(tenant, session, "ftjob-x8002"),
    "jobs by rare metadata": lambda session, tenant, _: jobs.page(tenant, session, metadata={"n": "9000"}),
    "a file goes": lambda session, tenant, file: files.delete(tenant, session, file),
    "the second worker's candidates": lambda session, _, __: (
        [a_claim(session, session.get_one(Job, w.job_id)) for w in candidates(session, MODEL, 8)]
        and candidates(session, MODEL, 8)
    ),
    "why a page of jobs waits": lambda session, tenant, _: waiting(tenant, session, jobs.page(tenant, session)[0]),
    "retention": lambda session, _, __: prune(session, Keep(1, 1, 1, 1)),
    "outlook": lambda session, _, __: outlook.note(session, MODEL, 8, 3.0),
    "sweep": lambda session, _, __: sweep(session, lambda _: None, every=0),
}


@pytest.mark.parametrize("act", ACTS)
def test_nothing_reads_all_jobs(factory, crowded, act):
    statements = []
    with factory() as session:
        connection = session.connection()

        def note(_connection, _cursor, statement, parameters, _context, _many):
            if statement.lstrip().startswith(("SELECT", "WITH", "DELETE")) and "jobs" in statement:
                statements.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", note)
        ACTS[act](session, *crowded)
        event.remove(connection, "before_cursor_execute", note)
        assert statements
        for statement, parameters in statements:
            found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
            plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
            assert rows_read(plan, "jobs") < 300, (statement, plan)
