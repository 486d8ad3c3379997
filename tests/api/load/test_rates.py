"""Limits by the minute: a tenant's, an address's, together over all processes, and alone where Valkey is away."""

import contextlib
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import openai
import pytest

from api.rates import Exceeded, Rates
from db.ids import new_id
from tests.api.conftest import client, serving
from tests.api.examples import choices, http, jsonl, submit, upload
from tests.waiting import AGES, until

HEADERS = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")


@pytest.fixture
def opened(settings, factory):
    """APIs with limits of their own: how many are started, and each one's URL."""
    with ExitStack() as last:
        yield lambda **changes: last.enter_context(serving(settings.model_copy(update=changes)))


@pytest.fixture
def tenant(factory, url):
    return lambda: client(factory, url, new_id("t-"))


def ask(url, who, path="/models", **headers):
    return http.get(url + path, headers={"Authorization": f"Bearer {who.secret}", **headers})


def allowed(limit, call):
    """How many calls are answered before one is refused, and the refusal. At most two minutes' worth: one minute may
    end meanwhile."""
    for count in range(2 * limit + 1):
        answer = call()
        if answer.status_code == 429:
            return count, answer
    pytest.fail("none was refused")


def refusal(answer):
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    return error["message"]


def test_every_answer_says_what_is_left(opened, tenant):
    url, who = opened(requests_a_minute=1000), tenant()
    headers = ask(url, who).headers
    limit, left, reset = (headers[name] for name in HEADERS)
    assert (limit, left) == ("1000", "999")
    assert 1 <= int(reset.removesuffix("s")) <= 60
    assert ask(url, who, "/files/none").headers[HEADERS[1]] in ("998", "999"), "an error's too"
    assert not set(HEADERS) & set(http.get(f"{url}/models").headers), "nobody's answer"


def test_processes_count_together_and_tenants_apart(opened, tenant):
    urls = [opened(requests_a_minute=6) for _ in range(2)]
    who, other = tenant(), tenant()
    turns = iter(urls * 10)
    count, refused = allowed(6, lambda: ask(next(turns), who))
    assert 6 <= count <= 12
    assert "6 requests a minute" in refusal(refused)
    assert (refused.headers[HEADERS[0]], refused.headers[HEADERS[1]]) == ("6", "0")
    assert ask(urls[0], other).status_code == 200


def test_an_openai_client_knows_the_error(opened, tenant):
    url, who = opened(requests_a_minute=1), tenant()
    with (
        openai.OpenAI(base_url=url, api_key=who.secret, max_retries=0) as asking,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        [asking.models.list() for _ in range(3)]
    assert refused.value.code == "rate_limit_exceeded"


def test_jobs_have_a_limit_of_their_own_and_repeats_are_none(opened, tenant):
    url, who = opened(jobs_a_minute=3), tenant()
    body = {"model": "tiny", "training_file": upload(who, *choices(3)), "onward": {"steps": 2, "rank": 2}}
    headers = {"Authorization": f"Bearer {who.secret}"}
    repeated = headers | {"Idempotency-Key": "k"}
    first = http.post(f"{url}/fine_tuning/jobs", headers=repeated, json=body).json()["id"]
    for _ in range(7):
        assert http.post(f"{url}/fine_tuning/jobs", headers=repeated, json=body).json()["id"] == first
    count, refused = allowed(3, lambda: http.post(f"{url}/fine_tuning/jobs", headers=headers, json=body))
    assert 2 <= count <= 6
    assert "3 jobs a minute" in refusal(refused)
    assert ask(url, who).status_code == 200


def test_uploads_are_counted_in_bytes_and_one_file_always_passes(opened, tenant):
    data = jsonl(*choices(1500))
    url, who = opened(upload_bytes_a_minute=len(data) + 1), tenant()
    form = {"headers": {"Authorization": f"Bearer {who.secret}"}, "data": {"purpose": "fine-tune"}}
    count, refused = allowed(2, lambda: http.post(f"{url}/files", files={"file": ("a.jsonl", data)}, **form))
    assert 2 <= count <= 4
    assert "bytes uploaded a minute" in refusal(refused)


def test_an_address_with_too_many_wrong_keys_is_closed_but_for_keys_that_were_good(opened, tenant):
    url, good, late = opened(wrong_keys_a_minute=5), tenant(), tenant()
    assert ask(url, good).status_code == 200
    wrong = {"Authorization": "Bearer sk-onward-wrong"}
    count, refused = allowed(5, lambda: http.get(f"{url}/models", headers=wrong))
    assert 5 <= count <= 10
    assert "wrong API keys from your address" in refusal(refused)
    assert ask(url, good).status_code == 200
    assert http.get(f"{url}/models").status_code == 401, "no key is no guess"
    assert ask(url, late).status_code in (200, 429)


@pytest.mark.parametrize("trusted, closed", [("", True), ("127.0.0.1", False)])
def test_an_address_is_the_peers_unless_a_proxy_is_trusted(opened, trusted, closed):
    url = opened(wrong_keys_a_minute=4, trusted_proxies=trusted)
    address = iter(range(100))

    def guess():
        forwarded = f"192.0.2.{next(address)}"
        return http.get(f"{url}/models", headers={"Authorization": "Bearer x", "X-Forwarded-For": forwarded})

    statuses = {guess().status_code for _ in range(20)}
    assert statuses == ({401, 429} if closed else {401})


class Silent:
    """A broker that accepts connections and says nothing; how many came."""

    def __init__(self):
        self.listener, self.came = socket.create_server(("127.0.0.1", 0)), []
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}/0"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        with contextlib.suppress(OSError):
            while True:
                self.came.append(self.listener.accept()[0])

    def close(self):
        for one in (self.listener, *self.came):
            one.close()


def test_a_valkey_that_says_nothing_is_asked_once_and_the_limit_holds_alone():
    silent = Silent()
    with contextlib.closing(silent):
        rates = Rates(silent.url, AGES, clock=lambda: 1e9)
        assert [rates.take("requests", "t", 3).now for _ in range(5)] == [1, 2, 3, 4, 5]
        with pytest.raises(Exceeded):
            rates.charge("requests", "t", 3)
        assert len(silent.came) == 1


def test_a_valkey_that_comes_back_is_counted_in_again_and_tried_by_one_request_at_a_time(redis_url):
    silent, who = Silent(), new_id("t-")
    with contextlib.closing(silent):
        rates = Rates(silent.url, 0.001, clock=lambda: 1e9)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: rates.take("requests", who, 9), range(8)))
            before = until(lambda: len(silent.came), "it was tried")
            rates._retry = AGES
            list(pool.map(lambda _: rates.take("requests", who, 9), range(8)))
        assert len(silent.came) <= before + 1
    rates._url, rates._far, rates._away_until = redis_url, None, 1e-9  # the time to leave it alone is over
    assert rates.take("requests", who, 9).now == 1, "Valkey's own count"
    assert Rates(redis_url, 1, clock=lambda: 1e9).take("requests", who, 9).now == 2


def test_requests_are_drawn_in_blocks_and_each_has_its_own_number(redis_url):
    """Two processes, of a limit of 1000: blocks of five. Valkey is asked once a block, and nobody beyond the limit is
    let through."""
    who, now = new_id("t-"), lambda: 1e9
    processes = [Rates(redis_url, 1, clock=now) for _ in range(2)]
    asked = []
    for one in processes:
        count = one._count
        one._count = lambda key, amount, count=count: asked.append(amount) or count(key, amount)
    numbers = [processes[i % 3 % 2].take("requests", who, 1000).now for i in range(60)]
    assert len(set(numbers)) == 60
    assert asked == [5] * 12
    taken = [processes[0].take("requests", who, 1000) for _ in range(1000)]
    assert sum(not one.over for one in taken) == 1000 - 60


def test_a_minute_later_all_is_allowed_again(redis_url):
    now, who = [1e9], new_id("t-")
    rates = Rates(redis_url, 1, clock=lambda: now[0])
    rates.charge("jobs", who, 1)
    with pytest.raises(Exceeded) as refused:
        rates.charge("jobs", who, 1)
    now[0] += refused.value.taken.reset
    rates.charge("jobs", who, 1)


def test_an_api_without_valkey_goes_on_and_limits(opened, tenant):
    silent = Silent()
    with contextlib.closing(silent):
        url, who = opened(redis_url=silent.url, requests_a_minute=5, rate_retry_seconds=AGES), tenant()
        count, refused = allowed(5, lambda: ask(url, who))
        assert 5 <= count <= 10
        refusal(refused)
        assert len(silent.came) == 1


def test_by_default_a_client_in_a_hurry_meets_no_limit(anna):
    training = upload(anna, *choices(3))
    made = [submit(anna, training, {"seed": seed}) for seed in range(30)]
    assert len({job.id for job in made}) == 30
    assert json.dumps([job.status for job in made]) == json.dumps(["queued"] * 30)
