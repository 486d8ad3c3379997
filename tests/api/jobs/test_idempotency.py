"""A request that is repeated is answered with the job it made, whatever became of its files, its model or the API."""

import contextlib
import signal
import socket
import threading
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from sqlalchemy import func, select

from db.queue import queue_name
from db.tables import Job
from tests.api.conftest import client, serving
from tests.api.examples import choices, http, submit, upload
from tests.api.processes import process
from tests.waiting import HANG


def jobs_of(factory, who):
    with factory.begin() as session:
        return session.scalar(select(func.count()).select_from(Job).where(Job.tenant_id == who.id))


def test_a_repeated_key_is_the_first_job_though_its_file_is_deleted(anna, factory):
    training, key = upload(anna, *choices(3)), {"Idempotency-Key": "deleted"}
    job = submit(anna, training, extra_headers=key)
    anna.openai.files.delete(training)
    before = jobs_of(factory, anna)
    assert submit(anna, training, extra_headers=key).id == job.id
    assert submit(anna, training, extra_headers={"x-stainless-retry-count": "1"}).id == job.id, "a client's own retry"
    with pytest.raises(openai.ConflictError) as conflict:
        submit(anna, training, {"steps": 5}, extra_headers=key)
    assert conflict.value.body["code"] == "idempotency_key_in_use"
    with pytest.raises(openai.NotFoundError):
        submit(anna, training, extra_headers={"Idempotency-Key": "another"})
    assert jobs_of(factory, anna) == before


def test_a_repeated_key_is_the_first_job_though_its_model_is_no_longer_served(anna, settings):
    training, key = upload(anna, *choices(3)), {"Idempotency-Key": "unserved"}
    job = submit(anna, training, extra_headers=key)
    with (
        serving(settings.model_copy(update={"models": {}})) as url,
        openai.OpenAI(base_url=url, api_key=anna.secret, max_retries=0, timeout=HANG) as later,
    ):
        asked = {"steps": 4, "batch_size": 2, "rank": 2}
        again = later.fine_tuning.jobs.create(
            model="tiny", training_file=training, extra_body={"onward": asked}, extra_headers=key
        )
        assert again.id == job.id


def test_an_api_killed_between_commit_and_answer_made_the_job_that_the_retry_is_answered_with(
    settings, redis_url, factory, url
):
    """It rings after the commit, and dies as it does."""
    who = client(factory, url, "bereaved")
    body = {"model": "tiny", "training_file": upload(who, *choices(3)), "onward": {"steps": 4, "rank": 2}}
    headers = {"Authorization": f"Bearer {who.secret}", "Idempotency-Key": "killed"}
    asked = f"LLEN\r\n${len(queue_name('tiny'))}\r\n{queue_name('tiny')}".encode()
    with Wire(redis_url, asked) as wire, process(settings.model_copy(update={"redis_url": wire.url})) as (api, root):
        wire.when = lambda: api.send_signal(signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            http.post(f"{root}/v1/fine_tuning/jobs", headers=headers, json=body)
        assert api.wait(HANG) == -signal.SIGKILL
    assert jobs_of(factory, who) == 1, "committed"
    again = http.post(f"{url}/fine_tuning/jobs", headers=headers, json=body)
    assert again.status_code == 200, again.text
    assert jobs_of(factory, who) == 1
    retry = {"Authorization": headers["Authorization"], "x-stainless-retry-count": "1"}
    assert http.post(f"{url}/fine_tuning/jobs", headers=retry, json=body).json()["id"] == again.json()["id"]
    listed = http.get(f"{url}/fine_tuning/jobs", headers=retry).json()["data"]
    assert [job["id"] for job in listed] == [again.json()["id"]]
    assert listed[0]["status"] == "queued"


class Wire:
    """A wire to the broker at `url`, until `asked` goes over it: then it does `when`, and is cut."""

    def __init__(self, url: str, asked: bytes) -> None:
        self.asked, self.when, self.broker = asked, lambda: None, urlsplit(url)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = url.replace(f":{self.broker.port}/", f":{self.listener.getsockname()[1]}/")

    def __enter__(self):
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def _listen(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection((self.broker.hostname, self.broker.port))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source, target):
        with source, target, contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.asked in data:
                    self.when()
                    return
                target.sendall(data)
