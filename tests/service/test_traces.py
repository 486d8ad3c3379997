"""One trace from the POST over the queue to the published adapter, and lines that name it in both processes."""

import signal
from urllib.request import urlopen

import pytest
import redis
from openai import OpenAI

from db import queue
from tests.ports import free_port
from tests.service.otlp import Received
from tests.waiting import HANG, until

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = CALLER.split("-")[1]


@pytest.fixture
def collector():
    received = Received()
    yield received
    received.close()


def test_a_jobs_trace_goes_from_the_request_to_its_adapter(stage, harmed, client, submit, collector):
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    port = free_port()
    api = stage.process("api", otel | {"ONWARD_HOST": "127.0.0.1", "ONWARD_PORT": str(port)})
    until(lambda: _answers(port), "the API is ready")
    (worker,) = harmed(**otel)
    # A worker rings for itself as it starts, and no doorbell is rung where one waits: those are to be answered first.
    stage.whole(client, submit(client, "harmed", steps=1))
    until(lambda: not any(_waits(stage, bell) for bell in ("harmed", f"harmed{queue.AUTOGRAD}")), "no doorbell waits")
    caller = OpenAI(
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key=client.api_key,
        timeout=HANG,
        default_headers={"traceparent": CALLER, "x-request-id": "mine-1"},
    )
    job = submit(caller, "harmed", steps=60)
    stage.whole(client, job)
    # Doorbells are answered in the order they were rung in: a sweep may have been faster than the first job's own.
    stage.whole(client, submit(client, "harmed", steps=1))
    for process in (api, worker):
        process.send(signal.SIGTERM)
        process.died()

    mine = [s for s in collector.spans if s["trace"] == TRACE]
    (post,) = (s for s in mine if s["name"] == "POST /v1/fine_tuning/jobs")
    assert (post["parent"], post["request"]) == (CALLER.split("-")[2], "mine-1")
    assert post["http.response.status_code"] == 200
    (rung,) = (s for s in mine if s["name"] == "ring" and s["parent"] == post["span"])
    assert [s for s in mine if s["name"] == "slice" and s["parent"] == rung["span"]]  # through Celery
    slices = {s["span"]: s for s in collector.spans if s["name"] == "slice"}  # a sweep may have been faster
    runs = [s for s in mine if s["name"] == "run"]
    assert {(s["parent"], s["job"]) for s in runs} == {(post["span"], job)}
    assert {x for s in runs for x in s["links"]} <= {s["trace"] for s in slices.values()}
    assert all(s["links"] for s in runs)
    assert {s["process"] for s in mine} == {"onward-api", "onward-worker"}
    (published,) = (s for s in mine if s["name"] == "publish")
    assert published["job"] == job
    steps = [s for s in collector.spans if s["name"] == "step"]
    assert len(steps) >= 60  # evaluations are steps of the engine too
    assert all(s["parent"] in slices and s["seconds"] <= slices[s["parent"]]["seconds"] for s in steps)

    (answered,) = (
        x for x in api.lines("answered") if x["request"] == "mine-1" and x["route"] == "/v1/fine_tuning/jobs"
    )
    assert (answered["trace"], answered["status"], answered["component"]) == (TRACE, 200, "api")
    assert answered["tenant"].startswith("ten_")
    (queued,) = (x for x in api.lines("queued") if x["job"] == job)
    (finished,) = (x for x in worker.lines("finished") if x["job"] == job)
    assert queued["trace"] == finished["trace"] == TRACE
    assert finished["step"] <= 60
    assert finished["slice"].startswith("slc_")


def test_a_request_has_an_id_of_its_own_where_the_callers_is_none(stage, client):
    answers = [client.models.with_raw_response.list(extra_headers=h) for h in ({}, {"x-request-id": "a bad id"})]
    ids = [a.headers["x-request-id"] for a in answers]
    assert len(set(ids)) == 2
    assert all(x.startswith("req_") for x in ids)


def test_without_an_endpoint_a_job_has_a_trace_all_the_same(stage, steady, client, submit):
    job = submit(client, "steady", steps=5)
    stage.whole(client, job)
    kept = stage.job(job).traceparent
    assert kept is not None
    (finished,) = (x for x in steady.lines("finished") if x["job"] == job)
    assert finished["trace"] == kept.split("-")[1]


def _waits(stage, bell):
    with redis.Redis.from_url(stage.redis_url) as broker:
        return broker.llen(queue.queue_name(bell))


def _answers(port: int) -> bool:
    try:
        return bool(urlopen(f"http://127.0.0.1:{port}/readyz", timeout=HANG).status == 200)
    except OSError:
        return False
