"""The rendered scaling query, asked of the real database: it counts the work that wants a worker, and no worker."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from db import workers
from db.session import make_engine
from db.tables import Restoration
from db.worker import leases
from tests.db import inserted
from tests.helm.charts import of_kind, only, rendered
from tests.waiting import HANG

MODEL = "smollm2-135m"  # 4 jobs a worker in values/keda.yaml


def trigger(name="keda"):
    return only(of_kind(rendered(name), "ScaledObject"))["spec"]["triggers"][0]


def ended(session, job):
    job.state, job.finished_at = "cancelled", datetime.now(UTC)
    session.flush()


def wanted(session):
    return float(session.execute(text(trigger()["metadata"]["query"])).scalar_one())


def stock(session, jobs=0, started=0, model=MODEL, state=None, tenant=None):
    """`jobs` queued jobs, of a new tenant unless one is given, and `started` workers, each on its own host."""
    tenant = tenant or inserted.a_tenant(session)
    made = [inserted.a_job(session, tenant, model=model) for _ in range(jobs)]
    ids = [workers.register(session, model=model, host=f"pod-{i}", pid=1) for i in range(started)]
    for one in ids if state else ():
        workers.beat(session, one, state=state)
    session.execute(text(f"UPDATE workers SET heartbeat_at = now() + interval '{HANG} seconds'"))  # they go on beating
    return made, ids


@pytest.mark.parametrize(
    "jobs, there, answer",
    [(0, 0, 0), (1, 0, 1), (4, 0, 1), (5, 0, 2), (9, 1, 3), (1, 3, 1), (0, 3, 0), (12, 3, 3), (13, 3, 4), (5, 3, 2)],
)
def test_wanted(session, jobs, there, answer):
    stock(session, jobs, there, state="ready")
    assert wanted(session) == answer


def test_idle_workers_can_go_while_a_job_runs(session):
    (job,), ids = stock(session, 1, 3, state="ready")
    leases.claim(session, job.id, ids[0], HANG, 5)
    assert wanted(session) == 1


def test_other_models_and_jobs_that_no_worker_may_step_do_not_count(session):
    stock(session, 9, 2, model="another")
    jobs, _ = stock(session, 2)
    jobs[0].state = "paused"
    session.flush()
    assert wanted(session) == 1
    ended(session, jobs[1])
    assert wanted(session) == 0


def test_of_a_tenant_no_more_than_it_may_run_counts(session):
    stock(session, 12, tenant=inserted.a_tenant(session, max_running=3))
    assert wanted(session) == 1
    stock(session, 2)
    assert wanted(session) == 2


def test_for_a_tenant_that_has_had_its_tokens_of_the_day_one_worker_is_there_and_no_more(session):
    """One, for no worker at all beside a living job is an alert that pages."""
    tenant = inserted.a_tenant(session, daily_tokens=100)
    stock(session, 9, tenant=tenant)
    assert wanted(session) == 3
    today = "(now() AT TIME ZONE 'UTC')::date"
    session.execute(text(f"INSERT INTO usage_days (tenant_id, day, tokens) VALUES (:t, {today}, 100)"), {"t": tenant})
    assert wanted(session) == 1


def test_a_step_that_is_asked_to_be_rebuilt_wants_one_worker(session):
    jobs, _ = stock(session, 2)
    for job in jobs:
        ended(session, job)
        session.add(Restoration(tenant_id=job.tenant_id, job_id=job.id, step=1, state="asked"))
    session.flush()
    assert wanted(session) == 1
    session.execute(text("DELETE FROM restorations"))
    assert wanted(session) == 0


def test_the_role_of_a_worker_may_ask_as_the_scheduler(urls, factory):
    """The login that helm/README.md gives KEDA: it reads no tenant's content, and nothing of the owner's."""
    with factory.begin() as session:
        stock(session, 5, 1)
    options = {"options": "-c role=onward_scheduler"}
    engine = make_engine(make_url(urls.worker_url).update_query_dict(options).render_as_string(hide_password=False))
    with Session(engine) as session:
        assert wanted(session) == 2
        with pytest.raises(ProgrammingError, match="permission denied"):
            session.execute(text("SELECT spec FROM jobs"))
    engine.dispose()


def test_the_trigger_reads_its_password_from_the_secret():
    given = trigger()["metadata"]
    assert given["targetQueryValue"] == "1"
    assert trigger()["metricType"] == "AverageValue"
    expected = {
        "host": "db.example.com",
        "port": "5433",
        "userName": "onward",
        "dbName": "onward",
        "sslmode": "require",
    }
    assert expected.items() <= given.items()
    assert "password" not in given
    auth = only(of_kind(rendered("keda"), "TriggerAuthentication"))
    assert trigger()["authenticationRef"]["name"] == auth["metadata"]["name"]
    assert auth["spec"]["secretTargetRef"] == [
        {"parameter": "password", "name": "onward-secrets", "key": "databasePassword"}
    ]


def test_a_connection_string_can_be_a_secret_whole():
    assert set(trigger("urls-from-secret")["metadata"]) == {"query", "targetQueryValue", "activationTargetQueryValue"}
    auth = only(of_kind(rendered("urls-from-secret"), "TriggerAuthentication"))
    assert auth["spec"]["secretTargetRef"][0]["parameter"] == "connection"


def test_scaling_in_is_slow():
    spec = only(of_kind(rendered("keda"), "ScaledObject"))["spec"]
    assert spec["cooldownPeriod"] == 600
    assert (
        spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
    )
