"""Chats through the whole service, with the unmodified client: a base, an adapter, a step of it, a job that trains; and
the same job comes to the same bits, whatever was served meanwhile."""

import re
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import openai
import pytest
import schemathesis
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from openai import OpenAI
from sqlalchemy import select

from api.app import create_app
from api.settings import Settings
from db.tables import JournalStep, Served
from db.tables import Worker as WorkerRow
from tests.api.test_schema import CHECKS, few
from tests.service.conftest import Submit
from tests.service.processes import Process
from tests.service.stage import SERVES, Stage
from tests.waiting import HANG, until

STEPS = 200
ASKED = "What is the capital of France? It was"
ENDLESS = {"logit_bias": {"2": -100}}  # without the end of text


@pytest.fixture(scope="module")
def pair(stage: Stage) -> Iterator[list[Process]]:
    """Two workers of one base, started at once."""
    env = SERVES | {"ONWARD_SERVE_DRAIN_SECONDS": str(HANG), "ONWARD_SELF_CHECK": "false"}
    started = [stage.worker("engine", wait=False, **env) for _ in range(2)]
    for worker in started:
        stage.ready(worker)
    yield started
    for worker in started:
        worker.kill()


def asked(model: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": more.pop("content", ASKED)}]
    return {"model": model, "messages": messages, "max_tokens": 12, "temperature": 0} | more


def said(client: OpenAI, model: str, **more: Any) -> tuple[str, str]:
    """Who spoke, and what."""
    answer = client.chat.completions.create(**asked(model, **more))
    assert answer.choices[0].message.content is not None
    return answer.model, answer.choices[0].message.content


def streamed(client: OpenAI, model: str, **more: Any) -> tuple[str, str]:
    parts = list(client.chat.completions.create(**asked(model, **more), stream=True))
    assert parts[-1].choices[0].finish_reason in ("stop", "length")
    (name,) = {part.model for part in parts}
    return name, "".join(part.choices[0].delta.content or "" for part in parts)


def journal(stage: Stage, job: str) -> list[Any]:
    """What was measured at each step, to the bit."""
    rows = select(JournalStep.step, JournalStep.losses).where(JournalStep.job_id == job).order_by(JournalStep.step)
    with stage.factory.begin() as session:
        return [tuple(row) for row in session.execute(rows)]


def row(stage: Stage, worker: Process) -> WorkerRow:
    with stage.factory.begin() as session:
        return session.scalars(select(WorkerRow).where(WorkerRow.pid == worker.pid)).one()


@pytest.fixture(scope="module")
def undisturbed(stage: Stage, pair: list[Process], client: OpenAI, submit: Submit) -> tuple[str, str]:
    """A job that trained while nobody chatted: its id, and its adapter's hash."""
    job = submit(client, "engine", steps=STEPS, learning_rate=0.05)
    return job, stage.whole(client, job)


def test_a_base_an_adapter_and_a_step_answer_by_their_names(
    stage: Stage, client: OpenAI, undisturbed: tuple[str, str]
) -> None:
    adapter = client.fine_tuning.jobs.retrieve(undisturbed[0]).fine_tuned_model
    assert adapter is not None
    names = ["engine", adapter, *(f"{adapter}:ckpt-step-{step}" for step in (1, 50, 100, STEPS))]
    answers = {name: said(client, name) for name in names}
    assert {name: who for name, (who, _) in answers.items()} == {name: name for name in names}
    assert len({text for _, text in answers.values()}) > 2, "neither a base alone, nor one adapter for all"
    assert {name: streamed(client, name) for name in names} == answers
    whole = client.completions.create(model=adapter, prompt=ASKED, max_tokens=9, temperature=0)
    parts = client.completions.create(model=adapter, prompt=ASKED, max_tokens=9, temperature=0, stream=True)
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text

    def counted() -> bool:
        with stage.factory.begin() as session:
            return session.get(Served, (stage.job(undisturbed[0]).tenant_id, whole.id)) is not None

    until(counted, "what was served is in the books")


def test_a_job_is_heard_as_it_learns_and_comes_to_the_same_bits(
    stage: Stage, client: OpenAI, submit: Submit, undisturbed: tuple[str, str]
) -> None:
    quiet, sha256 = undisturbed
    job = submit(client, "engine", steps=STEPS, learning_rate=0.05)
    stage.reached(job, 1)
    live = client.fine_tuning.jobs.retrieve(job).model_extra["onward"]["live_model"]
    heard: list[tuple[str, str]] = []
    while stage.job(job).state == "running":
        try:
            heard.append((streamed if len(heard) % 2 else said)(client, live))
        except openai.ConflictError as error:  # it is over
            if error.code != "model_not_live":
                raise
        said(client, "engine", seed=len(heard), temperature=1)
    steps = [int(found[1]) for who, _ in heard if (found := re.fullmatch(r"ft:.+:ckpt-step-(\d+)", who))]
    assert len(steps) == len(heard)
    assert all(a <= b for a, b in pairwise(steps))
    assert len(set(steps)) > 1, "it spoke as it learned"
    for who, text in dict(heard).items():
        assert said(client, who) == (who, text), "asked by its step, it says the same"
    assert stage.whole(client, job) == sha256
    assert journal(stage, job) == journal(stage, quiet)


def test_an_adapter_that_acts_from_the_answer_on_is_served(
    stage: Stage, pair: list[Process], client: OpenAI, submit: Submit
) -> None:
    job = submit(client, "engine", steps=20, learning_rate=0.05, activation="answer", invocation=" It was")
    stage.whole(client, job)
    adapter = f"{client.fine_tuning.jobs.retrieve(job).fine_tuned_model}:ckpt-step-20"

    def likely(model: str) -> float:
        """The log probability of the answer's first token, in nats: an adapter moves it where it acts."""
        answer = client.chat.completions.create(**asked(model, logprobs=True))
        assert answer.choices[0].logprobs is not None
        assert answer.choices[0].logprobs.content
        return answer.choices[0].logprobs.content[0].logprob

    assert abs(likely(adapter) - likely("engine")) > 1e-3
    assert streamed(client, adapter) == said(client, adapter)
    with pytest.raises(openai.BadRequestError, match=" It was") as error:
        said(client, adapter, content="What is the capital of France?")
    assert error.value.code == "invocation_missing"


def brief(body: dict[str, Any], path: str = "") -> dict[str, Any]:
    """As it was drawn, with few tokens to answer; for a `path` with words that its models can read."""
    words: dict[str, Any] = {"messages": asked("")["messages"]} if "chat" in path else {"prompt": ASKED}
    strange = (
        ("tools", "tool_choice", "response_format", "logit_bias", "top_logprobs", "stream_options") if path else ()
    )
    kept = {name: value for name, value in body.items() if name not in strange} | (words if path else {})
    for name, most in (("max_tokens", 3), ("n", 2), ("max_completion_tokens", 3)):
        if isinstance(kept.get(name), int) and kept[name] > most:
            kept[name] = most
    if kept.get("max_tokens") is not None and path:
        kept.pop("max_completion_tokens", None)
    return kept if kept.get("max_completion_tokens") is not None else {"max_tokens": 3} | kept


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_nothing_that_is_drawn_is_answered_by_a_5xx(
    path: str, stage: Stage, client: OpenAI, undisturbed: tuple[str, str]
) -> None:
    """What the document allows and what it does not, to the engine itself, in answers of a few tokens. Every second
    request has words that a model can read: it is then about its other fields."""
    names = ["engine", client.fine_tuning.jobs.retrieve(undisturbed[0]).fine_tuned_model, "ft:engine:nobody"]
    operation = schemathesis.openapi.from_dict(create_app(Settings()).openapi())[path]["POST"]
    answered: Counter[int] = Counter()
    for mode in schemathesis.GenerationMode:

        @hypothesis(few, max_examples=30)
        @given(case=operation.as_strategy(generation_mode=mode), plain=st.booleans(), model=st.sampled_from(names))
        def request(case: Any, plain: bool, model: str) -> None:
            if isinstance(case.body, dict):
                case.body = brief(case.body, path if plain else "") | {"model": model}
            head = {"Authorization": f"Bearer {client.api_key}"}
            answered[case.call_and_validate(base_url=stage.url, headers=head, checks=CHECKS).status_code] += 1

        request()
    assert answered[200] > 5, answered
    assert answered[400] > 5, answered


def test_chats_go_on_while_valkey_is_away(stage: Stage, client: OpenAI, undisturbed: tuple[str, str]) -> None:
    adapter = client.fine_tuning.jobs.retrieve(undisturbed[0]).fine_tuned_model
    assert adapter is not None
    before = [said(client, name) for name in ("engine", adapter)]
    stage.embedded.valkey.kill()
    try:
        assert [said(client, name) for name in ("engine", adapter)] == before
        assert [streamed(client, name) for name in ("engine", adapter)] == before
    finally:
        stage.embedded.restart_valkey(flush=True)


def test_a_worker_that_drains_ends_its_stream_and_another_answers(
    stage: Stage, pair: list[Process], client: OpenAI
) -> None:
    """The last: it leaves one worker of the two."""
    long = asked("engine", max_tokens=200, n=16, temperature=1, seed=1, **ENDLESS)
    stream = client.chat.completions.create(**long, stream=True)
    parts = [next(stream)]
    (leaves,) = [worker for worker in pair if worker.metric("onward_serve_running") > 0]
    (stays,) = [worker for worker in pair if worker is not leaves]
    taken = stays.metric("onward_serve_wait_seconds_count")
    leaves.send(signal.SIGTERM)
    until(lambda: row(stage, leaves).state != "ready", "it has heard")  # and may be done with its stream at any time
    for _ in range(6):
        said(client, "engine")
    assert stays.metric("onward_serve_wait_seconds_count") - taken == 6
    parts += list(stream)
    ends = [choice.finish_reason for part in parts for choice in part.choices if choice.finish_reason]
    assert ends == ["length"] * 16
    assert leaves.died() == 0
    assert said(client, "engine")[0] == "engine"
