"""Chats beside training, through the whole service: what each costs the other, the API's hop, an adapter's first word.

Load is the rate of requests times what one takes alone, asked in turn: batches make less of it. Times are the client's,
which is a process beside the service on the same cores.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx
import numpy as np
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from bench.report.measure import spread
from bench.sections import asking, service
from bench.sections.asking import Heard
from cli.local.stack import Stack
from db.contract.tokens.base_model import Base
from db.tables import Worker

LOADS: Final = (0.2, 0.5, 0.8)
STEPS: Final = 100_000  # more than any round of this takes
KEPT: Final = 24  # steps of the job whose adapters are asked for one after another
Say = Callable[[str], None]


@contextmanager
def chatting(base: Base) -> Iterator["Scene"]:
    """The service with a worker whose port and counters are known, and no limit on requests."""
    port, secret = _free_port(), secrets.token_hex(32)
    env = {"ONWARD_SERVE_SECRET": secret, "ONWARD_WORKER_METRICS_PORT": str(port), "ONWARD_REQUESTS_A_MINUTE": "0"}
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        with service.service(base) as (stack, client):
            yield Scene(stack, client, base.name, port, secret)
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@dataclass
class Scene:
    """A service, its one job that trains, and who asks."""

    stack: Stack
    client: OpenAI
    model: str
    port: int
    secret: str = field(repr=False)
    job: str = ""
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = self._http(self.stack.base_url, {"Authorization": f"Bearer {self.client.api_key}"})

    def direct(self) -> httpx.Client:
        """As the API dials the worker."""
        with self.stack.sessions.begin() as session:
            serves = session.scalars(select(Worker.serving).where(Worker.state == "ready")).one()
        assert serves is not None, "it has the secret"
        head = {"Authorization": f"Bearer {self.secret}", "X-Onward-Request": "bench", "X-Onward-Salt": "bench"}
        return self._http(f"{serves['url']}/v1", head)

    def counters(self) -> tuple[float, float, float]:
        """The worker's, so far: tokens scored, seconds of the engine that served, and that trained."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=30).text
        found = {"onward_scored_tokens_total": 0.0, "serving": 0.0, "training": 0.0}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.labels["use"] if sample.name == "onward_engine_seconds_total" else sample.name
                if name in found:
                    found[name] += sample.value
        return found["onward_scored_tokens_total"], found["serving"], found["training"]

    def trains(self) -> None:
        """The job goes on; returns once it takes steps."""
        if not self.job:
            file = service.upload(self.client, 1000)
            self.job = service.submit(self.client, self.model, file, STEPS, 8)
        else:
            self.client.fine_tuning.jobs.resume(self.job)
        scored = self.counters()[0]
        _until(lambda: self.counters()[0] > scored, "the job trains")

    def rests(self) -> None:
        """The job is paused; returns once the engine is nobody's."""
        self.client.fine_tuning.jobs.pause(self.job)
        service.wait_for(self.stack, self.job, lambda row: row.state == "paused", every=0.1)

    @staticmethod
    def _http(url: str, head: dict[str, str]) -> httpx.Client:
        limits = httpx.Limits(max_connections=asking.AT_ONCE, max_keepalive_connections=asking.AT_ONCE)
        return httpx.Client(base_url=url, headers=head, timeout=600, limits=limits)


def section(base: Base, rounds: int, requests: int, say: Say) -> dict[str, Any]:
    """`rounds` times `requests` requests of each load, beside a job that trains and without, in turns."""
    with chatting(base) as scene:
        asking.in_turn(scene.http, asking.bodies(scene.model, 4, 0))  # warm
        served = scene.counters()[1]
        alone = asking.in_turn(scene.http, asking.bodies(scene.model, 20, 1))
        costs = (scene.counters()[1] - served) / len(alone)
        say(f"one request asked alone: {np.median([a.whole for a in alone]):.2f} s, {costs:.2f} s of the engine")
        return {
            "one request alone, seconds": spread([a.whole for a in alone]),
            "engine's seconds a request": costs,
            "through the API against the worker's port": hop(scene, 5 * rounds, say),
            "an adapter's first token, seconds": _worn(scene, say),
            "beside training": _beside(scene, rounds, requests, costs, say),
        }


def _beside(scene: Scene, rounds: int, requests: int, costs: float, say: Say) -> dict[str, Any]:
    heard: dict[tuple[float, bool], list[Heard]] = {(load, trains): [] for load in LOADS for trains in (False, True)}
    shares: dict[float, list[float]] = {load: [] for load in LOADS}
    scene.trains()
    for number in range(rounds):
        least = 30.0 if rounds > 2 else 10.0
        rate = _rate(scene, lambda: time.sleep(least))[0]  # noqa: B023 - called at once
        for trains in (True, False):
            for load in LOADS:
                # Prompts of its own: one that was asked before is remembered, and its answer begins sooner.
                asked = asking.bodies(scene.model, requests, 1000 * number + int(100 * load) + trains)
                act = partial(asking.at_times, scene.http, asked, load / costs, number)
                now, served, answers = _rate(scene, act)
                heard[load, trains] += answers
                if trains:
                    shares[load].append(now / rate / (1 - served))
                how = "beside training" if trains else "alone"
                say(f"round {number + 1}, load {load:.0%}, {how}: {_short(answers)}")
            if trains:
                scene.rests()
        if number + 1 < rounds:
            scene.trains()
    cells = {f"load {load:.0%}": (heard[load, False], heard[load, True], shares[load]) for load in LOADS}
    alone, beside = ([one for load in LOADS for one in heard[load, trains]] for trains in (False, True))
    cells["all loads"] = (alone, beside, [one for load in LOADS for one in shares[load]])
    return {name: _compared(*cell) for name, cell in cells.items()}


def _rate(scene: Scene, act: Callable[[], Any]) -> tuple[float, float, Any]:
    """Of the time of `act`: scored tokens a second, the share of it that the engine served, and what `act` returned."""
    before, begun = scene.counters(), time.perf_counter()
    result = act()
    after, took = scene.counters(), time.perf_counter() - begun
    return (after[0] - before[0]) / took, (after[1] - before[1]) / took, result


def _compared(alone: list[Heard], beside: list[Heard], shares: list[float]) -> dict[str, Any]:
    found: dict[str, Any] = {"requests": len(alone)}
    for name, of in (("first token", _firsts), ("between tokens", _gaps)):
        for quantile in (50, 99):
            a, b = (float(np.percentile(of(answers), quantile)) for answers in (alone, beside))
            found[f"{name}, p{quantile}"] = {"alone": a, "beside": b, "ratio": b / a}
    found["training over what serving leaves of it"] = spread(shares)
    return found


def _firsts(answers: list[Heard]) -> list[float]:
    return [a.first for a in answers]


def _gaps(answers: list[Heard]) -> list[float]:
    return [gap for a in answers for gap in a.between]


def _short(answers: list[Heard]) -> str:
    first, gap = np.percentile(_firsts(answers), (50, 99)), np.percentile(_gaps(answers), (50, 99))
    return f"first token p50 {first[0]:.3f} p99 {first[1]:.3f} s, between {gap[0]:.3f} and {gap[1]:.3f} s"


def hop(scene: Scene, pairs: int, say: Say, turn: int = 0) -> dict[str, Any]:
    """The same requests to the API and to the worker, in turns; what the first adds. Every `turn` asks anew."""
    worker = scene.direct()
    asked = asking.bodies(scene.model, 2 * pairs, 2 + 1000 * turn)
    ways: tuple[list[Heard], list[Heard]] = ([], [])
    for number, body in enumerate(asked):
        for way in (0, 1) if number % 2 else (1, 0):
            own = {"prompt": [100 + way, *body["prompt"]]}  # not the other's: the engine would remember it
            ways[way].append(asking.ask((scene.http, worker)[way], body | own | ({"model": "base"} if way else {})))
    api, bare = ways
    first = float(np.median(_firsts(api)) - np.median(_firsts(bare)))
    say(f"the API adds {1000 * first:.1f} ms to a first token")
    gap = float(np.median(_gaps(api)) - np.median(_gaps(bare)))
    return {"first token, p50 seconds more": first, "a token, p50 seconds more": gap, "requests": len(api)}


def _worn(scene: Scene, say: Say) -> dict[str, Any]:
    """Steps of one job: asked for the first time, made from journal and snapshot, and at once again."""
    file = service.upload(scene.client, 64)
    job = service.submit(scene.client, scene.model, file, KEPT, 2)
    service.wait_for(scene.stack, job, lambda row: row.state == "succeeded", every=0.5)
    name = scene.client.fine_tuning.jobs.retrieve(job).fine_tuned_model
    new, held = [], []
    for step in range(1, KEPT):
        first, again = asking.bodies(f"{name}:ckpt-step-{step}", 2, step)
        new.append(asking.ask(scene.http, first).first)
        held.append(asking.ask(scene.http, again).first)
    more = float(np.median(new) - np.median(held))
    say(f"a step not asked for before: {1000 * more:.0f} ms more to its first token")
    return {"not held": spread(new), "held": spread(held), "more": more}


def _until(true: Callable[[], bool], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
