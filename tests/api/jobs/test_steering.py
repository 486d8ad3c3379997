"""Duplicates, and a job's states through the API: what may follow what."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import openai
import pytest

from db import workers
from db.tables import Job, Lease
from tests.api.conftest import client
from tests.api.examples import choices, http, submit, upload


@pytest.fixture(scope="module")
def training(anna):
    return upload(anna, *choices(3))


@pytest.fixture
def post(anna, url, training):
    def send(onward=None, **headers):
        body = {"model": "tiny", "training_file": training, "onward": {"steps": 2, "rank": 2} | (onward or {})}
        keys = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.post(
            f"{url}/fine_tuning/jobs", headers=keys | {"Authorization": f"Bearer {anna.secret}"}, json=body
        )

    return send


def test_the_same_key_and_body_is_the_same_job(post):
    first, again = (post(Idempotency_Key="one").json() for _ in range(2))
    assert first["id"] == again["id"]
    assert first["seed"] == again["seed"]
    assert post(Idempotency_Key="two").json()["id"] != first["id"]


def test_the_same_key_with_another_body_is_a_conflict(post):
    assert post(Idempotency_Key="three").status_code == 200
    answer = post({"steps": 3}, Idempotency_Key="three")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "idempotency_key_in_use"
    assert answer.headers["x-should-retry"] == "false"


def test_requests_at_once_with_one_key_make_one_job(post):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(Idempotency_Key="storm"), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_a_repeat_by_the_openai_client_is_the_same_job(post):
    first = post({"eps": 0.011}).json()["id"]
    assert post({"eps": 0.011}, x_stainless_retry_count="1").json()["id"] == first
    assert post({"eps": 0.011}, x_stainless_retry_count="0").json()["id"] != first
    assert post({"eps": 0.012}, x_stainless_retry_count="1").json()["id"] != first
    assert post({"eps": 0.012}, x_stainless_retry_count="no number").status_code == 200


def test_a_queued_job_is_paused_resumed_and_cancelled_at_once(anna, training):
    jobs = anna.openai.fine_tuning.jobs
    job = submit(anna, training)
    with pytest.raises(openai.ConflictError):
        jobs.resume(job.id)
    assert jobs.pause(job.id).status == "paused"
    with pytest.raises(openai.ConflictError):
        jobs.pause(job.id)
    assert jobs.resume(job.id).status == "queued"
    ended = jobs.cancel(job.id)
    assert (ended.status, ended.trained_tokens, ended.fine_tuned_model) == ("cancelled", 0, None)
    assert ended.finished_at is not None
    for call in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(openai.ConflictError) as caught:
            call(job.id)
        assert caught.value.body["code"] == "wrong_state"
        assert "cancelled" in caught.value.body["message"]
    assert jobs.retrieve(job.id).status == "cancelled"


def test_a_running_job_keeps_running_until_its_worker_obeys(anna, factory, training):
    job = submit(anna, training)
    with factory.begin() as session:
        row = session.get(Job, job.id)
        row.state, row.started_at, row.fence = "running", row.created_at, 1
        worker = workers.register(session, model="tiny", host="here", pid=1)
        until = row.created_at + timedelta(hours=1)
        session.add(Lease(job_id=job.id, tenant_id=anna.id, worker_id=worker, token=1, expires_at=until))
    asked = anna.openai.fine_tuning.jobs.cancel(job.id)
    assert asked.status == "running"
    assert asked.model_extra["onward"]["wish"] == "cancel"


def test_a_failed_job_says_why(anna, factory, training):
    job = submit(anna, training)
    with factory.begin() as session:
        row = session.get(Job, job.id)
        row.state, row.finished_at = "failed", row.created_at
        row.error = {"code": "non_finite", "message": "the losses of step 3 are not finite", "param": None}
    failed = anna.openai.fine_tuning.jobs.retrieve(job.id)
    assert (failed.status, failed.error.code) == ("failed", "non_finite")
    assert "step 3" in failed.error.message


def test_quota_is_told_and_not_retried(factory, url):
    poor = client(factory, url, "poor", token_quota=10)
    with pytest.raises(openai.RateLimitError) as caught:
        submit(poor, upload(poor, *choices(3)))
    assert caught.value.body["code"] == "insufficient_quota"
    assert caught.value.response.headers["x-should-retry"] == "false"
    with factory.begin() as session:
        assert session.query(Job).filter_by(tenant_id=poor.id).count() == 0
