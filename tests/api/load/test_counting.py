"""Counting tokens holds up nobody: not the probes, not another tenant, not the end of the process."""

import json
import signal
import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from api import token_counts
from api.token_counts import counting
from tests.api.conftest import Client, client, serving
from tests.api.examples import CHAT, choices, http, jsonl, upload
from tests.api.processes import process
from tests.waiting import HANG, until

POSTS = 45
ROWS = 50_000  # of CHAT: 4.7 MiB


def headers(who: Client) -> dict[str, str]:
    return {"Authorization": f"Bearer {who.secret}"}


def post(root: str, who: Client, file: str, seed: int = 1) -> httpx.Response:
    body = {"model": "tiny", "training_file": file, "onward": {"steps": 2, "rank": 2, "seed": seed}}
    return http.post(f"{root}/v1/fine_tuning/jobs", headers=headers(who), json=body)


@pytest.fixture
def crowd():
    with ThreadPoolExecutor(POSTS) as pool:
        yield pool


@pytest.fixture
def large(settings, factory):
    """A tenant and its file, whose rows nobody has counted."""

    def upload_to(root: str, name: str) -> tuple[Client, str]:
        who = client(factory, f"{root}/v1", name)
        rows = jsonl(CHAT | {"messages": [*CHAT["messages"], {"role": "user", "content": name}]}) + jsonl(CHAT) * ROWS
        sent = http.post(
            f"{root}/v1/files", headers=headers(who), files={"file": ("a.jsonl", rows)}, data={"purpose": "fine-tune"}
        )
        return who, sent.raise_for_status().json()["id"]

    return upload_to


def test_while_many_wait_for_one_count_others_are_answered(settings, factory, large, crowd):
    with process(settings) as (_, root):
        who, file = large(root, "crowd")
        other = client(factory, f"{root}/v1", "bystander")
        posts = [crowd.submit(post, root, who, file, seed) for seed in range(POSTS)]
        seconds = []
        while not any(one.done() for one in posts):
            for path in ("/readyz", "/v1/models"):
                began = time.monotonic()
                assert http.get(root + path, headers=headers(other)).status_code == 200
                seconds.append(time.monotonic() - began)
        assert {one.result().status_code for one in posts} == {200}
        assert len({one.result().json()["id"] for one in posts}) == POSTS
    assert len(seconds) >= 6, "answered while the count was under way"
    assert statistics.median(seconds) < 1


def test_a_process_that_is_told_to_end_does_not_wait_for_a_count(settings, large, crowd):
    with process(settings, drain_seconds=0.2) as (started, root):
        who, file = large(root, "ending")
        posts = [crowd.submit(post, root, who, file, seed) for seed in range(8)]
        until(lambda: "onward_counts_waiting 8.0" in http.get(f"{root}/metrics").text, "all wait")
        started.send_signal(signal.SIGTERM)
        assert {one.result().status_code for one in posts} == {503}
        assert {one.result().headers["retry-after"] for one in posts} == {"1"}
        assert started.wait(HANG) == 0


class Held:
    """Counts that go on until they are let go; which files were begun, and how many were given up."""

    def __init__(self) -> None:
        self.go, self.begun, self.given_up = threading.Event(), 0, 0

    def counting(self, base, rows, ids=()):
        self.begun += 1
        try:
            while not self.go.wait(0.01):
                yield
        except GeneratorExit:
            self.given_up += 1
            raise
        return (yield from counting(base, rows, ids))


@pytest.fixture
def held(monkeypatch):
    found = Held()
    monkeypatch.setattr(token_counts, "counting", found.counting)
    yield found
    found.go.set()


def test_a_file_is_counted_once_for_all_who_ask(held, anna, ben, url, crowd):
    files = [(who, upload(who, *choices(3))) for who in (anna, ben, anna)]  # of the same content
    root = url.removesuffix("/v1")
    posts = [crowd.submit(post, root, *pair) for pair in files]
    until(lambda: "onward_counts_waiting 3.0" in http.get(f"{root}/metrics").text, "all wait")
    held.go.set()
    assert [one.result().status_code for one in posts] == [200] * 3
    assert held.begun == 1


def test_beyond_its_queue_a_tenant_is_told_to_come_back_and_another_is_not(held, settings, factory, crowd):
    with serving(settings.model_copy(update={"count_waiting": 2})) as url:
        root = url.removesuffix("/v1")
        many, other = client(factory, url, "many"), client(factory, url, "other")
        mine, theirs = upload(many, *choices(4)), upload(other, *choices(5))
        posts = [crowd.submit(post, root, many, mine) for _ in range(2)]
        until(lambda: "onward_counts_waiting 2.0" in http.get(f"{root}/metrics").text, "both wait")
        refused = post(root, many, mine)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) > 0
        posts.append(crowd.submit(post, root, other, theirs))
        until(lambda: "onward_counts_waiting 3.0" in http.get(f"{root}/metrics").text, "the other waits too")
        held.go.set()
        assert [one.result().status_code for one in posts] == [200] * 3


def test_what_nobody_waits_for_any_more_is_not_counted(held, anna, url):
    file = upload(anna, *choices(6))
    body = json.dumps({"model": "tiny", "training_file": file, "onward": {"steps": 2, "rank": 2}})
    address = urlsplit(url)
    head = f"POST /v1/fine_tuning/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {anna.secret}\r\n"
    with socket.create_connection((address.hostname, address.port)) as wire:
        wire.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        until(lambda: held.begun, "it is being counted")
    until(lambda: held.given_up, "it is given up")
    held.go.set()
    assert post(url.removesuffix("/v1"), anna, file).status_code == 200
