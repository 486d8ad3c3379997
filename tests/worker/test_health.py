"""What a worker answers from its side thread while the main one loads, steps, drains or hangs."""

import time
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.ports import free_port
from tests.waiting import HANG
from worker import metrics
from worker.health import Progress, serve


@pytest.fixture
def asked():
    port = free_port()
    progress = Progress(stuck_seconds=HANG)
    serve(port, progress)

    def get(path):
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=HANG) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    return progress, get


def test_ready_from_the_engines_check_until_the_drain(asked):
    progress, get = asked
    assert get("/healthz") == (200, "ok\n")
    assert get("/readyz") == (503, "not ready\n")
    progress.ready.set()
    assert get("/readyz") == (200, "ok\n")
    progress.draining.set()
    assert get("/readyz") == (503, "draining\n")
    assert get("/healthz")[0] == 200  # it still has a step to end
    assert get("/else")[0] == 404


def test_who_is_out_of_service_is_not_ready_and_says_why(asked):
    progress, get = asked
    progress.ready.set()
    progress.out = lambda: "disk"
    assert get("/readyz") == (503, "out of service: disk\n")
    assert get("/healthz")[0] == 200  # another start would not mend it
    progress.out = lambda: None
    assert get("/readyz") == (200, "ok\n")


def test_a_step_that_hangs_is_neither_alive_nor_ready(asked):
    progress, get = asked
    progress.ready.set()
    with progress.step():
        assert get("/healthz")[0] == 200
        progress.stuck_seconds = 0.0  # the step takes longer than it may from now on
        assert get("/healthz") == (503, "stuck in a step\n")
        assert get("/readyz")[0] == 503
    assert get("/healthz")[0] == 200


def test_a_step_that_stands_while_the_engine_serves_is_not_stuck_and_a_step_of_serving_that_hangs_is(asked):
    progress, get = asked
    stood = [5.0]
    progress.stood = lambda: stood[0]
    with progress.step():
        progress.stuck_seconds = 0.0
        assert get("/healthz") == (503, "stuck in a step\n")
        stood[0] += 2 * HANG  # as long as nobody has waited
        assert get("/healthz")[0] == 200
    since = [time.monotonic() - 10.0]
    progress.serving_since = lambda: since[0]
    progress.stuck_seconds = HANG
    assert get("/healthz")[0] == 200
    progress.stuck_seconds = 9.0
    assert get("/healthz") == (503, "stuck in a step\n")
    since[0] = None
    assert get("/healthz")[0] == 200


def test_metrics_are_there_before_the_first_event(asked):
    _, get = asked
    metrics.zero("a-model")
    status, text = get("/metrics")
    assert status == 200
    for name in ("onward_forwards_total", "onward_canaries_total", "onward_engine_ready", "onward_slices_total"):
        assert f'{name}{{model="a-model"}} 0.0' in text
    for outcome in metrics.ENDINGS:
        assert f'onward_jobs_ended_total{{model="a-model",outcome="{outcome}"}} 0.0' in text
    assert "process_resident_memory_bytes" in text


def test_the_disk_is_read_at_every_scrape(asked, tmp_path):
    _, get = asked
    metrics.watch_disk(tmp_path / "home")
    free = next(x for x in get("/metrics")[1].splitlines() if x.startswith("onward_home_free_bytes "))
    assert float(free.split()[1]) > 0
