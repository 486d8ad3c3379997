"""A chat through the API with a real worker, as a tenant has it: base, a job while it trains, a step, an adapter, the
worker's death, and what it came to. The client is the unmodified openai package."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from sqlalchemy import select

from db.tables import Served
from tests.ports import free_port
from tests.service.conftest import Submit
from tests.service.processes import Process
from tests.service.stage import Stage
from tests.waiting import HANG, until

SERVES = {"ONWARD_SERVE_SECRET": "between the api and its workers", "ONWARD_SERVE_ADDRESS": "127.0.0.1"}
MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]
MODEL = "engine"


@pytest.fixture(scope="module")
def url(stage: Stage) -> str:
    """Of an API that knows the workers' secret, beside the stage's own."""
    port = free_port()
    api = stage.process("api", {"ONWARD_HOST": "127.0.0.1", "ONWARD_PORT": str(port), **SERVES})
    at = f"http://127.0.0.1:{port}"
    until(lambda: _listens(at, api), "the API answers")
    return f"{at}/v1"


def _listens(at: str, api: Process) -> bool:
    assert api.alive, api.log.read_text()[-3000:]
    try:
        return httpx.get(f"{at}/readyz", timeout=HANG).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def tenant(stage: Stage, url: str) -> OpenAI:
    found = stage.tenant("chats")
    return OpenAI(base_url=url, api_key=found.api_key, max_retries=0, timeout=HANG)


@pytest.fixture
def worker(stage: Stage) -> Iterator[Process]:
    started = stage.worker(MODEL, ONWARD_SLOTS="4", **SERVES)
    yield started
    started.kill()


def say(client: OpenAI, model: str, **more: Any) -> tuple[str, str]:
    """Who spoke, and what was said."""
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_completion_tokens=12, temperature=0, **more
    )
    return answer.model, answer.choices[0].message.content or ""


def stream(client: OpenAI, model: str, **more: Any) -> tuple[str, str]:
    parts = client.chat.completions.create(
        model=model, messages=MESSAGES, max_completion_tokens=12, temperature=0, stream=True, **more
    )
    names, words = set(), []
    for part in parts:
        names.add(part.model)
        words += [choice.delta.content or "" for choice in part.choices]
    assert len(names) == 1
    return names.pop(), "".join(words)


def test_base_live_step_and_adapter(stage: Stage, worker: Process, tenant: OpenAI, submit: Submit) -> None:
    base = say(tenant, MODEL)
    assert base[0] == MODEL
    assert stream(tenant, MODEL) == base
    job_id = submit(tenant, MODEL, steps=60, learning_rate=0.3)
    stage.reached(job_id, 3)
    live = tenant.fine_tuning.jobs.retrieve(job_id).model_extra["onward"]["live_model"]
    spoke, said = until(lambda: _live(tenant, live), "a live answer")
    assert spoke.startswith(live.removesuffix("live") + "ckpt-step-")
    assert stream(tenant, spoke) == (spoke, said), "the step that spoke says the same again"
    stage.whole(tenant, job_id)
    assert say(tenant, spoke) == (spoke, said)
    adapter = tenant.fine_tuning.jobs.retrieve(job_id).fine_tuned_model
    assert adapter is not None
    assert say(tenant, adapter)[0] == adapter
    assert say(tenant, adapter)[1] != base[1]
    with pytest.raises(openai.ConflictError, match=f"Use '{adapter}'"):
        say(tenant, live)


def _live(client: OpenAI, name: str) -> tuple[str, str] | None:
    """A job that gives way for a moment is queued, and says so."""
    try:
        return say(client, name)
    except openai.ConflictError:
        return None


def test_what_was_served_is_written_once(stage: Stage, worker: Process, tenant: OpenAI) -> None:
    answer = tenant.chat.completions.create(model=MODEL, messages=MESSAGES, max_completion_tokens=5)
    assert answer.usage is not None

    def written() -> tuple[int, int] | None:
        with stage.factory.begin() as session:
            row = session.scalar(select(Served).where(Served.request == answer.id))
            return None if row is None else (row.prompt, row.completion)

    assert until(written, "it is written") == (answer.usage.prompt_tokens, answer.usage.completion_tokens)


def _ended(heard: Iterator[Any]) -> str | None:
    """How a stream ended: `whole` with a reason to end, or by which error."""
    try:
        return "whole" if [part.choices[0].finish_reason for part in heard][-1] else "nothing"
    except openai.APIError as error:
        return error.code


def test_a_worker_that_is_killed(stage: Stage, tenant: OpenAI) -> None:
    """A stream that had begun ends with an error; what follows is answered by the other worker, and nobody notices."""
    workers = [stage.worker(MODEL, ONWARD_SLOTS="4", **SERVES) for _ in range(2)]
    try:
        parts = tenant.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_completion_tokens=150, stream=True, logit_bias={"2": -100}
        )
        heard = iter(parts)
        next(heard)
        first, second = workers
        first.kill()
        assert _ended(heard) in ("whole", "worker_failed")  # it was the other's, which went on, or it was cut
        assert [say(tenant, MODEL)[0] for _ in range(4)] == [MODEL] * 4
        second.kill()
        with pytest.raises(openai.InternalServerError) as nobody:
            say(tenant, MODEL)
        assert nobody.value.code == "no_worker"
    finally:
        for process in workers:
            process.kill()
