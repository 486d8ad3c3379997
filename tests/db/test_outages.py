"""PostgreSQL killed and restarted, Valkey away, hung and emptied: what was committed stays, and work goes on."""

import signal

import pytest
import redis
from sqlalchemy import make_url, select, text, update
from sqlalchemy.exc import OperationalError

from db import queue
from db.ids import new_id
from db.session import make_engine
from db.sweep import sweep
from db.tables import Job
from db.worker import journal, leases
from db.worker.journal import Step
from tests.attempts import attempts
from tests.db.inserted import a_claim, a_job, a_tenant, a_worker, patient_ringer
from tests.waiting import HANG


@pytest.fixture
def model():
    return new_id("m-")


@pytest.fixture
def ring(redis_url):
    return patient_ringer(redis_url)


def length(redis_url, model) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return client.llen(queue.queue_name(model))


def test_a_silent_transaction_lets_its_rows_go_and_is_a_lost_connection(urls, factory):
    """Whoever is cut off in the middle of one, with no sign of it, must not hold a job's row for ever."""
    with factory.begin() as session:
        job = a_job(session, a_tenant(session))
    short = make_url(urls.database_url).update_query_dict({"options": "-c idle_in_transaction_session_timeout=200ms"})
    engine = make_engine(short.render_as_string(hide_password=False), pool_size=1)
    row = select(Job.id).where(Job.id == job.id).with_for_update()
    with engine.connect() as silent, factory.begin() as session:
        silent.execute(row)
        session.execute(text(f"SET LOCAL lock_timeout = '{HANG}s'"))
        assert session.scalar(row) == job.id, "it was given, once the silent one was ended"
        with pytest.raises(OperationalError) as lost:
            silent.commit()
        assert lost.value.connection_invalidated
    engine.dispose()


def test_no_transaction_may_be_silent_for_ever(factory):
    with factory.begin() as session:
        assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"


@pytest.mark.parametrize("how", ["restart_postgres", "kill_postgres"])
def test_committed_rows_survive_postgres_and_the_pool_recovers(servers, factory, how):
    with factory.begin() as session:
        job = a_job(session, a_tenant(session))
        claim = a_claim(session, job)
        journal.flush(session, claim, [Step(0, [0.1, 0.2], 5)])
    several = [factory() for _ in range(4)]  # connections that the outage cuts
    for one in several:
        one.execute(text("SELECT 1"))
    for one in several:
        one.close()
    open_one = factory()
    journal.flush(open_one, claim, [Step(1, [0.3, 0.4], 5)])
    if how == "kill_postgres":
        servers.kill_postgres()
        with pytest.raises(OperationalError), factory.begin() as session:
            session.execute(text("SELECT 1"))
    servers.restart_postgres()
    with pytest.raises(OperationalError):
        open_one.commit()
    open_one.close()
    with factory.begin() as session:
        assert journal.read(session, claim) == [[0.1, 0.2]]
        assert leases.renew(session, [claim], HANG) == {job.id}
        journal.flush(session, claim, [Step(1, [0.5, 0.6], 5)])
        assert len(journal.read(session, claim)) == 2


def create(factory, model, ring) -> str:
    with factory.begin() as session:
        job = a_job(session, a_tenant(session), model=model)
        queue.ring_after_commit(session, model, ring)
    return job.id


def sweep_when_due(factory, model, ring) -> int:
    with factory.begin() as session:
        a_worker(session, model)
        session.execute(update(Job).values(rung_at=text("now() - interval '6 seconds'")))
        return sweep(session, ring)


def test_an_emptied_valkey_loses_nothing(servers, factory, redis_url, model, ring):
    job = create(factory, model, ring)
    assert length(redis_url, model) == 1
    servers.restart_valkey(flush=True)
    assert length(redis_url, model) == 0
    assert sweep_when_due(factory, model, ring) >= 1
    assert length(redis_url, model) == 1
    with factory.begin() as session:
        assert session.scalars(select(Job.state).where(Job.id == job)).one() == "queued"


def test_a_valkey_that_restarts_in_order_keeps_its_doorbells(servers, factory, redis_url, model, ring):
    create(factory, model, ring)
    servers.restart_valkey()
    assert length(redis_url, model) == 1


@pytest.mark.parametrize("how", ["down", "hung"])
def test_a_job_is_accepted_while_valkey_is_away_and_rung_for_later(servers, factory, redis_url, model, ring, how):
    hasty = queue.ringer(queue.celery_app(redis_url))  # as the API's
    server = servers.valkey.popen
    if how == "hung":
        server.send_signal(signal.SIGSTOP)
    else:
        servers.valkey.kill()
    try:
        with attempts(("127.0.0.1", servers.valkey.port)) as made:
            job = create(factory, model, hasty)
    finally:
        if how == "hung":
            server.send_signal(signal.SIGCONT)
        else:
            servers.restart_valkey()
    assert made.seconds + queue.SOCKET_SECONDS < 1.5, "the answer must not wait for the broker"
    with factory.begin() as session:
        assert session.scalars(select(Job.state).where(Job.id == job)).one() == "queued"
    with redis.Redis.from_url(redis_url) as client:
        client.delete(queue.queue_name(model))  # where the broker was only slow it may have heard all the same
    assert sweep_when_due(factory, model, ring) >= 1
    assert length(redis_url, model) == 1
