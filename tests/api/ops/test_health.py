"""What holds while parts are away, what is measured, and what the process may not load."""

import subprocess
import sys
import time

import httpx
import pytest

from db.tables import Job
from tests.api.conftest import client, serving
from tests.api.examples import choices, http, submit, upload
from tests.api.processes import process
from tests.attempts import attempts
from tests.waiting import AGES, HANG, until

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def root(url):
    return url.removesuffix("/v1")


def sample(text, name):
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " ")), None)


def test_health_and_readiness(root):
    assert http.get(f"{root}/healthz").json() == {"status": "ok"}
    whole = {"status": "ok", "database": "ok", "broker": "ok"}

    def ready() -> bool:  # a broker that is slow to answer is away for this once
        answer = http.get(f"{root}/readyz")
        assert answer.status_code == 200
        return answer.json() == whole

    until(ready, "every part is ready")


def test_unknown_routes_and_methods_answer_in_openai_shape(anna, root):
    for verb, path, status in (("GET", "/v2/x", 404), ("GET", "/v1/files/", 404), ("PUT", "/v1/files", 405)):
        answer = http.request(verb, root + path, headers={"Authorization": f"Bearer {anna.secret}"})
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=101", "after=%00", "after=ftjob-none%00"])
def test_bad_queries_are_the_clients_fault(anna, root, query):
    answer = http.get(f"{root}/v1/fine_tuning/jobs?{query}", headers={"Authorization": f"Bearer {anna.secret}"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_metrics_count_routes_and_show_the_queue(anna, root, factory):
    began = time.monotonic()
    submit(anna, upload(anna, *choices(2)))
    for name in ("a", "b"):
        http.get(f"{root}/v1/files/{name}", headers={"Authorization": f"Bearer {anna.secret}"})
    labels = 'method="GET",route="/v1/files/{file_id}",status="404"'

    def counted() -> str | None:  # an answer is counted after it was sent
        text = http.get(f"{root}/metrics").text
        return text if sample(text, f"onward_http_requests_total{{{labels}}}") == 2 else None

    text = until(counted, "both are counted")
    assert sample(text, 'onward_http_request_seconds_count{method="GET",route="/v1/files/{file_id}"}') == 2
    with factory.begin() as session:
        queued = session.query(Job).filter_by(state="queued").count()
    assert sample(text, 'onward_jobs{model="tiny",state="queued"}') == queued
    assert sample(text, 'onward_jobs{model="tiny",state="running"}') == 0
    assert 0 < sample(text, 'onward_oldest_queued_age_seconds{model="tiny"}') <= time.monotonic() - began
    assert sample(text, "onward_database_up") == 1
    assert anna.id not in text


def test_without_redis_a_job_is_accepted_at_once(settings, factory):
    with serving(settings.model_copy(update={"redis_url": NOWHERE})) as url:
        who = client(factory, url, "no-redis")
        training = upload(who, *choices(2))
        submit(who, training)
        with attempts(("127.0.0.1", 1)) as made:
            job = submit(who, training)
        assert (len(made.connections), made.pauses) == (1, [])
        assert made.seconds < 1
        with factory.begin() as session:
            assert session.get(Job, job.id).state == "queued"
        ready = http.get(url.removesuffix("/v1") + "/readyz")
        assert (ready.status_code, ready.json()["broker"]) == (200, "away")


def test_without_postgres_the_answer_is_try_again(settings):
    away = "postgresql+psycopg://onward@127.0.0.1:1/onward"
    with serving(settings.model_copy(update={"database_url": away})) as url:
        root = url.removesuffix("/v1")
        answer = http.get(f"{url}/models", headers={"Authorization": "Bearer sk-onward-x"})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "127.0.0.1" not in answer.text
        assert http.get(f"{root}/healthz").status_code == 200
        assert http.get(f"{root}/readyz").status_code == 503
        assert sample(http.get(f"{root}/metrics").text, "onward_database_up") == 0


def test_a_database_without_tables_answers_but_is_behind(settings, empty_database_url):
    with serving(settings.model_copy(update={"database_url": empty_database_url})) as url:
        text = http.get(url.removesuffix("/v1") + "/metrics").text
    assert sample(text, "onward_database_up") == 1
    assert sample(text, "onward_schema_current") == 0
    assert "onward_jobs{" not in text


def test_what_was_not_foreseen_is_a_500_that_says_nothing(settings, factory, anna, tmp_path):
    broken = settings.model_copy(update={"models": {"tiny": str(tmp_path / "secret-folder")}})
    with serving(broken) as url:
        body = {"model": "tiny", "training_file": upload(anna, *choices(2))}
        headers = {"Authorization": f"Bearer {anna.secret}"}
        answer = http.post(f"{url}/fine_tuning/jobs", headers=headers, json=body)
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "server_error"
        assert "secret-folder" not in answer.text
        assert answer.headers["x-request-id"].startswith("req_")
        text = http.get(url.removesuffix("/v1") + "/metrics").text
        labels = 'method="POST",route="/v1/fine_tuning/jobs",status="500"'
        assert sample(text, f"onward_http_requests_total{{{labels}}}") == 1


def test_the_page_describes_the_routes_and_every_schema_it_names(root):
    page = http.get(f"{root}/openapi.json").json()
    assert "/v1/fine_tuning/jobs/{job_id}/cancel" in page["paths"]
    named = set()

    def walk(part):
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                named.add(part["$ref"].removeprefix("#/components/schemas/"))
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk(page)
    assert {"JobCreate", "Onward", "JobObject"} <= named
    assert named <= set(page["components"]["schemas"])
    assert http.get(f"{root}/docs").status_code == 200


def test_the_api_loads_no_model_code():
    program = (
        "import sys, api.app, api.__init__; "
        "print([m for m in ('torch', 'vllm', 'transformers', 'peft', 'worker') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_process_that_drains_answers_and_sends_its_clients_elsewhere(settings):
    with process(settings, drain_seconds=AGES) as (started, root), httpx.Client(timeout=HANG) as kept:
        assert "connection" not in kept.get(f"{root}/healthz").headers
        started.terminate()
        until(lambda: http.get(f"{root}/readyz").status_code == 503, "it has heard")
        draining = kept.get(f"{root}/readyz")  # on the connection it had
        assert (draining.status_code, draining.json()["status"]) == (503, "draining")
        assert draining.headers["connection"] == "close"
        assert kept.get(f"{root}/healthz").status_code == 200  # on a new one
        started.terminate()  # told twice, it drains no longer
        assert started.wait(HANG) == 0


def test_a_process_ends_in_order_once_it_has_drained(settings):
    with process(settings, drain_seconds=0.2) as (started, _):
        started.terminate()
        assert started.wait(HANG) == 0
