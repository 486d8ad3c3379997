"""The rendered scaling query, asked of the real database: a busy worker is never scaled in."""

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from db import workers
from db.session import make_engine
from db.tables import Worker
from db.worker import leases
from tests.db import inserted
from tests.helm.charts import of_kind, only, rendered
from tests.waiting import HANG

MODEL = "smollm2-135m"  # 4 jobs a worker in values/keda.yaml


def trigger(name="keda"):
    return only(of_kind(rendered(name), "ScaledObject"))["spec"]["triggers"][0]


def wanted(session):
    return float(session.execute(text(trigger()["metadata"]["query"])).scalar_one())


def stock(session, jobs=0, started=0, model=MODEL, state=None):
    """`jobs` queued jobs and `started` workers, each on its own host."""
    tenant = inserted.a_tenant(session)
    made = [inserted.a_job(session, tenant, model=model) for _ in range(jobs)]
    ids = [workers.register(session, model=model, host=f"pod-{i}", pid=1) for i in range(started)]
    for one in ids if state else ():
        workers.beat(session, one, state=state)
    session.execute(text(f"UPDATE workers SET heartbeat_at = now() + interval '{HANG} seconds'"))  # they go on beating
    return made, ids


@pytest.mark.parametrize(
    "jobs, fresh, answer",
    [(0, 0, 0), (1, 0, 1), (4, 0, 1), (5, 0, 2), (9, 1, 3), (1, 3, 3), (0, 3, 0), (12, 3, 3), (13, 3, 4)],
)
def test_wanted(session, jobs, fresh, answer):
    stock(session, jobs, fresh)
    assert wanted(session) == answer


def test_a_running_job_keeps_every_worker(session):
    (job,), ids = stock(session, 1, 2, state="ready")
    leases.claim(session, job.id, ids[0], HANG, 5)
    assert wanted(session) == 2


def test_other_models_ended_jobs_and_gone_workers_do_not_count(session):
    stock(session, 9, 2, model="another")
    jobs, _ = stock(session, 2, 3, state="draining")
    jobs[0].state = "paused"
    session.flush()
    assert wanted(session) == 1


def test_a_stale_worker_and_a_second_start_in_one_pod_do_not_count(session):
    _, ids = stock(session, 1, 2)
    workers.register(session, model=MODEL, host="pod-0", pid=2)
    session.execute(
        text("UPDATE workers SET heartbeat_at = now() - interval '31 seconds' WHERE id = :id"), {"id": ids[1]}
    )
    assert session.get(Worker, ids[1]) is not None
    assert wanted(session) == 1


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
