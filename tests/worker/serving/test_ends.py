"""How answers end before their end: what they held is given back, counted, and nobody else notices."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.waiting import until
from tests.worker.scoring.cases import layout, probe
from tests.worker.scoring.conftest import SERVE_SLOTS, Pair
from tests.worker.serving.house import SECRET, House, opened
from worker import metrics
from worker.serving import asks
from worker.types import Wearable

pytestmark = pytest.mark.parametrize("pair", ["llama-tied"], indirect=True)
LONG: Any = {"prompt": [5, 6, 7], "max_tokens": 250, "logit_bias": {"2": -100}}  # it does not end by itself


@pytest.fixture
def house(pair: Pair) -> Iterator[House]:
    with opened(pair) as made:
        yield made
        made.rested()
        assert made.free_blocks == made.scheduler.kv_cache_manager.block_pool.num_gpu_blocks - 1
        assert made.taken == ()
        assert made.serving._client.idle


def worn(house: House, number: int) -> Wearable:
    shape = layout(house.pair.modules, 2, 4.0, "q_proj")
    made = Wearable(f"ftjob-a@{number}", shape, probe(np.random.default_rng(number), shape))
    house.closet.worn[made.name] = made
    return made


def aborts(reason: str) -> float:
    return float(metrics.serve_aborts.labels("tiny", reason)._value.get())


def opened_stream(house: House, model: str = "base", **head: str) -> socket.socket:
    """A connection that has asked and does not read."""
    host, port = house.url.removeprefix("http://").split(":")
    body = json.dumps(LONG | {"model": model, "stream": True}).encode()
    lines = house.head(**head) | {
        "Host": host, "Authorization": f"Bearer {SECRET}", "Content-Length": str(len(body)),
        "Content-Type": "application/json",
    }  # fmt: skip
    made = socket.create_connection((host, int(port)))
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    made.sendall(f"POST /v1/completions HTTP/1.1\r\n{text}\r\n".encode() + body)
    return made


def slowed(house: House, patch: pytest.MonkeyPatch) -> None:
    """A step takes 20 ms at least: what is LONG takes five seconds on any machine."""
    schedule = house.scheduler.schedule

    def later(*given: Any, **named: Any) -> Any:
        time.sleep(0.02)
        return schedule(*given, **named)

    patch.setattr(house.scheduler, "schedule", later)


def test_a_client_that_leaves_in_mid_stream_is_aborted_within_two_steps(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowed(house, monkeypatch)
    adapter, before, free = worn(house, 1), aborts("client"), house.free_blocks
    line = opened_stream(house, adapter.name)
    assert b"200 OK" in line.recv(4096)
    until(lambda: house.taken == (adapter.name,), "it wears its adapter")
    seen: list[int] = []
    abort = house.desk.abort

    def noted(*given: Any) -> None:
        seen.append(house.desk.steps)
        abort(*given)

    house.desk.abort = noted
    line.close()
    until(lambda: house.idle, "it is aborted")
    assert house.desk.steps <= seen[0] + 2
    assert (house.taken, house.free_blocks) == ((), free)
    assert aborts("client") == before + 1


def test_clients_that_leave_before_the_first_token_and_while_queued(house: House) -> None:
    """The engine's thread is busy elsewhere: nothing that was asked has begun."""
    before, holds, go = aborts("client"), threading.Event(), threading.Event()
    owner = house.pair.vllm.owner
    busy = threading.Thread(target=lambda: owner.run(lambda: (holds.set(), go.wait(60))))
    busy.start()
    assert holds.wait(60)
    lines = [opened_stream(house, salt=f"tenant {n}") for n in range(3)]
    until(lambda: len(house.serving._client._open) == 3, "all have asked")
    for line in lines:
        line.close()
    until(lambda: house.serving._client.idle, "all have left")
    go.set()
    busy.join()
    until(lambda: aborts("client") == before + 3, "all are aborted")
    assert house.desk.queued_tokens == 0


def test_a_reader_that_does_not_read_is_cut(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asks, "UNREAD", 8)
    before = aborts("slow_reader")
    read, begun = asks.Stream.__anext__, []

    async def stuck(stream: asks.Stream) -> Any:
        """As where the connection takes no more after the first."""
        if begun:
            await asyncio.Event().wait()
        begun.append(stream)
        return await read(stream)

    monkeypatch.setattr(asks.Stream, "__anext__", stuck)
    line = opened_stream(house)
    until(lambda: aborts("slow_reader") == before + 1, "it is cut")
    assert len(begun[0]._unread) <= 8
    monkeypatch.setattr(asks.Stream, "__anext__", read)
    line.settimeout(60)
    while line.recv(4096):
        pass
    assert house.dialled().completions.create(model="base", prompt="a", max_tokens=2).choices


def test_what_is_too_much_is_told_when_to_come_again(pair: Pair) -> None:
    """The tenant that waits least is taken, whoever fills the queue."""
    with opened(pair, serve_queue_tokens=900) as house:
        holds, go = threading.Event(), threading.Event()
        busy = threading.Thread(target=lambda: pair.vllm.owner.run(lambda: (holds.set(), go.wait(60))))
        busy.start()
        assert holds.wait(60)
        flood = [opened_stream(house, salt="flood") for _ in range(8)]
        until(lambda: len(house.serving._client._open) == 8, "all have asked")
        mine: list[Any] = []
        asked = threading.Thread(
            target=lambda: mine.append(house.dialled("mine").completions.create(model="base", **LONG))
        )
        asked.start()
        until(lambda: len(house.serving._client._open) == 9, "I have asked, last of all")
        go.set()
        busy.join()
        answers = [line.recv(4096) for line in flood]
        late = [a for a in answers if b"503" in a.split(b"\r\n")[0]]
        assert late
        assert all(b'"overloaded"' in a and b"retry-after: " in a for a in late)
        assert any(b"200 OK" in a for a in answers)
        asked.join()
        assert mine[0].usage.completion_tokens == 250
        for line in flood:
            line.close()
        house.rested()


def test_a_deadline_ends_an_answer_with_an_error(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    slowed(house, monkeypatch)
    before = aborts("deadline")
    client = house.dialled(**{"X-Onward-Deadline": str(time.time() + 0.7)})
    with pytest.raises(openai.APIError, match="within the time"):  # as a status, where not one token came in time
        list(client.completions.create(model="base", stream=True, **LONG))
    until(lambda: aborts("deadline") == before + 1, "it is counted")


def test_more_adapters_than_places_are_all_answered(house: House) -> None:
    """One tenant asks for many at once, another for the base: everybody is answered by what they asked for."""
    many = [worn(house, n) for n in range(3 * SERVE_SLOTS)]
    alone = [
        house.dialled().completions.create(model=m.name, prompt="The film", max_tokens=6, temperature=0) for m in many
    ]
    said: dict[str, str] = {}

    def ask(name: str, salt: str) -> None:
        answer = house.dialled(salt).completions.create(model=name, prompt="The film", max_tokens=6, temperature=0)
        said[name] = answer.choices[0].text

    threads = [threading.Thread(target=ask, args=(m.name, "many")) for m in many]
    threads.append(threading.Thread(target=ask, args=("base", "one")))
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [said[m.name] for m in many] == [a.choices[0].text for a in alone]
    assert "base" in said
    assert metrics.serve_adapters_evicted.labels("tiny")._value.get() > 0


def test_a_drain_refuses_waits_and_ends_the_rest(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(pair) as house:
        slowed(house, monkeypatch)
        client = house.dialled()
        stream = client.completions.create(model="base", stream=True, **LONG)
        next(stream)
        house.serving.refuse_more()
        with pytest.raises(openai.InternalServerError) as refused:
            client.completions.create(model="base", prompt="a", max_tokens=1)
        assert (refused.value.code, refused.value.response.headers["retry-after"]) == ("draining", "1")
        assert house.serving.offer == {}
        house.serving.drain(0)
        with pytest.raises((openai.APIError, httpx.HTTPError)):
            list(stream)
        until(lambda: house.idle, "what it held is given back")
