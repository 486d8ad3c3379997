"""The playground over wires: what can be chosen, and the way to a model by the browser's session."""

import json

import httpx
import pytest

from db.ids import live_name
from db.tenant import keys
from tests.api.chat.conftest import HI, counted, published
from tests.api.chat.wire import WORDS
from tests.api.conftest import MODEL
from tests.api.console.conftest import Browser
from tests.waiting import HANG, until


@pytest.fixture
def browser(url):
    with httpx.Client(base_url=url.removesuffix("/v1") + "/console/", timeout=HANG) as http:
        yield Browser(http)


def asked(browser, token=None, **fields):
    """What the page sends."""
    body = {"model": MODEL, "messages": HI, "stream": True, "stream_options": {"include_usage": True}} | fields
    return browser.http.post("chat", json=body, headers={"x-onward-form": browser.token if token is None else token})


def test_what_can_be_asked_can_be_chosen(browser, eva, factory, train):
    _, name = train(eva, "running", 3)
    done, made = train(eva, "succeeded")
    published(factory, eva, done, made, 3)
    shown = browser.sign_in(eva.secret).get(f"playground?model={live_name(name)}").text
    for one in (MODEL, live_name(name), made):
        assert f'value="{one}"' in shown
    assert f'value="{live_name(name)}" selected' in shown


def test_an_answer_comes_by_the_session_and_is_counted(browser, eva, factory, worker):
    answer = asked(browser.sign_in(eva.secret))
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    said = [json.loads(event) for event in events[:-1]]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in said if one["choices"]) == "".join(WORDS)
    assert {one["model"] for one in said} == {MODEL}
    assert until(lambda: counted(factory, eva), "the tokens are counted")


@pytest.mark.parametrize(("token", "kind"), [("", "application/json"), ("0" * 64, "application/json")])
def test_another_sites_page_asks_nothing(browser, eva, worker, token, kind):
    refused = asked(browser.sign_in(eva.secret), token)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "stale_form")
    headers = {"x-onward-form": browser.token, "sec-fetch-site": "cross-site"}
    refused = browser.http.post("chat", json={"model": MODEL, "messages": HI}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "other_site")
    assert worker.seen == []


def test_what_the_api_refuses_the_page_is_told(browser, eva, worker):
    browser.sign_in(eva.secret)
    unknown = asked(browser, model="ft:tiny:other::x")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    field = asked(browser, cache_salt="x")
    assert (field.status_code, field.json()["error"]["param"]) == (400, "cache_salt")
    assert browser.http.post("chat", content=b"{", headers={"x-onward-form": browser.token}).status_code == 400
    assert worker.seen == []


def test_a_key_that_may_only_chat_signs_in_and_does_only_that(browser, eva, factory, worker):
    with factory.begin() as session:
        _, secret = keys.create_key(session, eva.id, rights=["serve"])
    assert browser.http.post("login", data={"key": secret}).status_code == 303
    page = browser.http.get("playground")
    assert page.status_code == 200
    token = page.text.split('data-csrf="')[1].split('"')[0]
    assert asked(browser, token).status_code == 200
    assert browser.http.get("jobs").status_code == 403


def test_a_key_that_may_only_read_asks_nothing(browser, eva, factory, worker):
    with factory.begin() as session:
        _, secret = keys.create_key(session, eva.id, rights=["read"])
    browser.sign_in(secret)
    assert browser.http.get("jobs").status_code == 200
    assert asked(browser, browser.token).status_code == 403
    assert worker.seen == []
