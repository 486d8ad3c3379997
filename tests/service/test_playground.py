"""The playground in Chromium against a real engine: base, adapter and a job that trains, side by side, as the API says
it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI
from playwright.sync_api import Page, expect

from tests import chromium
from tests.service.conftest import Submit
from tests.service.stage import SERVES, UNBROKEN, Stage
from tests.waiting import HANG

pytestmark = chromium.NEEDED
PROMPT = "What is the capital of France? It was"


@pytest.fixture(scope="module")
def trained(stage: Stage, client: OpenAI, submit: Submit) -> Iterator[str]:
    """With a worker that serves: the name of an adapter."""
    worker = stage.worker("engine", **SERVES, **UNBROKEN, ONWARD_SELF_CHECK="false")
    job = submit(client, "engine", steps=40, learning_rate=0.05)
    stage.whole(client, job)
    adapter = client.fine_tuning.jobs.retrieve(job).fine_tuned_model
    assert adapter is not None
    yield adapter
    worker.kill()


def asked(page: Page, root: str, models: list[str], tokens: int) -> list[tuple[str, str]]:
    """Each place's answer and what is said of it, once all have spoken."""
    page.goto(f"{root}playground")
    page.get_by_label("Message", exact=True).fill(PROMPT)
    page.get_by_label("Tokens at most").fill(str(tokens))
    for place, model in enumerate(models):
        page.get_by_label(f"Model {place + 1}", exact=True).get_by_role("combobox").select_option(model)
    ask = page.get_by_role("button", name="Ask")
    ask.click()
    expect(ask).to_be_enabled(timeout=HANG * 1000)
    places = page.get_by_role("region").all()[: len(models)]
    return [(place.locator(".answer").inner_text(), place.locator(".how").inner_text()) for place in places]


def test_three_speak_side_by_side_as_the_api_has_them_say_it(
    stage: Stage, client: OpenAI, submit: Submit, trained: str
) -> None:
    job = submit(client, "engine", steps=100_000, learning_rate=0.05)
    stage.reached(job, 1)
    live = client.fine_tuning.jobs.retrieve(job).model_extra["onward"]["live_model"]
    try:
        with (
            chromium.launched() as browser,
            chromium.signed_in(browser, stage.url, client.api_key) as (page, root, wrong),
        ):
            heard = asked(page, root, ["engine", trained, live], 12)
            chromium.clean(page, wrong)
        speakers = [how.split(": ", 1)[0] for _, how in heard]
        assert speakers[:2] == ["engine", trained]
        assert re.fullmatch(r"ft:.+:ckpt-step-\d+", speakers[2]), "the step that spoke"
        for (text, how), name in zip(heard, speakers, strict=True):
            assert re.search(r"first words after \d+\.\d\d s, \d+ tokens in \d+\.\d\d s$", how), how
            assert words(text) == words(said(client, name)), name
    finally:
        client.fine_tuning.jobs.cancel(job)


def test_what_cannot_be_said_is_said_in_its_place(stage: Stage, client: OpenAI, trained: str) -> None:
    """A prompt beyond the context: each place says why, and the page stays usable."""
    with (
        chromium.launched() as browser,
        chromium.signed_in(browser, stage.url, client.api_key) as (page, root, wrong),
    ):
        heard = asked(page, root, ["engine", trained], 4096)
        assert all("4096" in text for text, _ in heard), heard
        assert page.locator(".answer.wrong").count() == 2
        assert asked(page, root, ["engine"], 3)[0][0]
        assert all("400" in message for message in wrong), "the refusals alone, as the browser tells of them"


def said(client: OpenAI, model: str) -> str:
    messages: list[Any] = [{"role": "user", "content": PROMPT}]
    answer = client.chat.completions.create(model=model, messages=messages, max_completion_tokens=12, temperature=0)
    return answer.choices[0].message.content or ""


def words(text: str) -> list[str]:
    """A page shows runs of white space as one."""
    return text.split()
