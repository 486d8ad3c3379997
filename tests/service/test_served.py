"""A real worker process answers chats on its own port: of the base, of a job that has ended, of one that is training,
and to its end. The client is the unmodified openai package, which shows what the API would show."""

import signal
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from sqlalchemy import select

from db.tables import Worker as WorkerRow
from tests.service.conftest import Submit
from tests.service.processes import Process
from tests.service.stage import SECRET, SERVES, Stage
from tests.waiting import HANG, until

SLOWLY = {"ONWARD_FAULT": "serving_step:1:slow"}  # so that an answer is not over before what is to happen meanwhile
MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]


def served(stage: Stage, worker: Process) -> dict[str, Any]:
    with stage.factory.begin() as session:
        found = session.scalar(select(WorkerRow.serving).where(WorkerRow.pid == worker.pid))
    return found or {}


def dialled(stage: Stage, worker: Process, salt: str = "a tenant") -> OpenAI:
    """As the API dials."""
    url = served(stage, worker)["url"]
    head = {"X-Onward-Request": "req-1", "X-Onward-Salt": salt}
    return OpenAI(base_url=f"{url}/v1", api_key=SECRET, default_headers=head, max_retries=0, timeout=HANG)


@pytest.fixture(scope="module")
def worker(stage: Stage) -> Iterator[Process]:
    started = stage.worker("engine", **SERVES, ONWARD_SLOTS="4")
    yield started
    started.kill()


def said(client: OpenAI, model: str, **more: Any) -> str:
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=12, temperature=0, **more)
    assert answer.choices[0].message.content is not None
    return answer.choices[0].message.content


def test_a_worker_that_waits_for_a_doorbell_answers(stage: Stage, worker: Process) -> None:
    offer = served(stage, worker)
    assert {"held": [], "queued_tokens": 0, "tools": False, "answer": True}.items() <= offer.items()
    client = dialled(stage, worker)
    first = said(client, "base")
    assert said(client, "base") == first
    load = httpx.get(f"{offer['url']}/load", headers={"Authorization": f"Bearer {SECRET}"}).json()
    assert load == {"queued_tokens": 0, "held": [], "context": 256}


def test_a_job_is_answered_as_it_trains_and_when_it_has_ended(
    stage: Stage, worker: Process, client: OpenAI, submit: Submit
) -> None:
    job_id = submit(client, "engine", steps=40, learning_rate=0.3)
    mine = dialled(stage, worker)
    stage.reached(job_id, 3)
    live = said(mine, f"{job_id}@3")
    assert said(mine, f"{job_id}@3") == live
    stage.whole(client, job_id)
    assert said(mine, f"{job_id}@3") == live, "a step that spoke says the same again"
    assert said(mine, f"{job_id}@40") != said(mine, "base")
    until(lambda: f"{job_id}@40" in served(stage, worker)["held"], "the row tells what is held")
    with pytest.raises(openai.NotFoundError) as unknown:
        said(mine, f"{job_id}@41")
    assert unknown.value.code == "adapter_unknown"


def test_a_drain_lets_answers_end_and_takes_no_more(stage: Stage) -> None:
    worker = stage.worker("engine", ONWARD_SERVE_DRAIN_SECONDS=str(HANG), **SERVES | SLOWLY, ONWARD_SLOTS="4")
    client = dialled(stage, worker)
    stream = client.chat.completions.create(model="base", messages=MESSAGES, max_tokens=200, stream=True, seed=1)
    assert next(stream).choices
    worker.send(signal.SIGTERM)

    def refused() -> openai.APIStatusError | None:
        try:
            said(client, "base")
        except openai.APIStatusError as error:
            return error
        return None

    error = until(refused, "it refuses")
    assert error is not None
    assert (error.status_code, error.code) == (503, "draining")
    assert error.response.headers["retry-after"]
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] in ("stop", "length")
    assert worker.died() == 0


def test_a_drain_that_is_over_ends_answers_with_an_error(stage: Stage) -> None:
    worker = stage.worker("engine", ONWARD_SERVE_DRAIN_SECONDS="0", **SERVES | SLOWLY, ONWARD_SLOTS="4")
    client = dialled(stage, worker)
    stream = client.completions.create(model="base", prompt="The", max_tokens=250, stream=True, logit_bias={"2": -100})
    next(stream)
    worker.send(signal.SIGTERM)
    with pytest.raises((openai.APIError, httpx.HTTPError)):
        list(stream)
    assert worker.died() == 0


def test_training_goes_on_beside_chats_and_comes_to_the_same(
    stage: Stage, worker: Process, client: OpenAI, submit: Submit
) -> None:
    """The journal's replay is what was published, whatever was served meanwhile."""
    job_id = submit(client, "engine", steps=30, seed=11)
    mine, answers = dialled(stage, worker), 0
    while stage.job(job_id).state not in ("succeeded", "failed", "cancelled"):
        said(mine, "base", seed=answers)
        answers += 1
    assert answers > 0
    stage.whole(client, job_id)


def test_a_step_that_raises_ends_every_stream_with_an_error_and_the_process(stage: Stage) -> None:
    """No stream hangs and none ends as though it were whole; the worker was idle when it came to nothing."""
    worker = stage.worker("engine", ONWARD_FAULT="serving_step:60:raise", **SERVES)
    client, about = dialled(stage, worker), {"model": "base", "prompt": "The", "logit_bias": {"2": -100}}
    create: Any = client.completions.create
    streams = [create(**about, max_tokens=250, stream=True) for _ in range(2)]
    for stream in streams:
        with pytest.raises(openai.APIError) as error:
            list(stream)
        assert error.value.code == "engine_failed"
    with pytest.raises(openai.APIError):
        create(**about, max_tokens=2)
    assert worker.died() == 1
    with stage.factory.begin() as session:
        row = session.scalars(select(WorkerRow).where(WorkerRow.pid == worker.pid)).one()
    assert row.state == "gone"
    assert row.reason == "engine: RuntimeError: ONWARD_FAULT at serving_step"
    assert row.serving is None
