"""Serving on the tests' real engine, over HTTP, as the API and its openai client see it. Knows one engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
from openai import OpenAI

from tests.waiting import HANG, until
from tests.worker.scoring.conftest import Pair
from worker.runs.replay import Point
from worker.serving.adapters import Adapters
from worker.serving.making import Made, Unknown
from worker.serving.open import Serving
from worker.settings import WorkerSettings
from worker.types import Wearable

SECRET = "between the two of us"
MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]
_numbers = count()


@dataclass
class Closet:
    """Where adapters are made from, in place of a database."""

    worn: dict[str, Wearable] = field(default_factory=dict)

    def make(self, job_id: str, step: int, _: Point | None = None) -> Made:
        found = self.worn.get(f"{job_id}@{step}")
        if found is None:
            raise Unknown(f"{job_id} has no step {step}")
        return Made(found.layout, found.params)


@dataclass
class House:
    pair: Pair
    serving: Serving
    closet: Closet

    @property
    def url(self) -> str:
        return str(self.serving.offer["url"])

    @property
    def desk(self) -> Any:
        return self.serving._client.desk

    @property
    def scheduler(self) -> Any:
        return self.pair.vllm.engine.served.engine_core.engine_core.scheduler

    def head(self, salt: str = "a tenant", **more: str) -> dict[str, str]:
        return {"X-Onward-Request": f"req-{next(_numbers)}", "X-Onward-Salt": salt, **more}

    def dialled(self, salt: str = "a tenant", **more: str) -> OpenAI:
        """The unmodified client, shown the secret."""
        return OpenAI(
            base_url=f"{self.url}/v1", api_key=SECRET, default_headers=self.head(salt, **more), max_retries=0,
            timeout=HANG, http_client=httpx.Client(trust_env=False, timeout=HANG),
        )  # fmt: skip

    def posted(self, body: Any, path: str = "/v1/chat/completions", **head: str) -> httpx.Response:
        """Bytes, or JSON as it is."""
        about = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json", **self.head(), **head}
        given = {"content": body} if isinstance(body, bytes) else {"json": body}
        return httpx.post(f"{self.url}{path}", headers=about, timeout=HANG, trust_env=False, **given)

    @property
    def free_blocks(self) -> int:
        return int(self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    @property
    def taken(self) -> tuple[str, ...]:
        return self.pair.vllm.engine.places.pinned

    @property
    def idle(self) -> bool:
        return not self.desk.runnable and not self.scheduler.requests

    def rested(self) -> None:
        """Wait until nothing is under way."""
        until(lambda: self.idle, "it rests")


@contextmanager
def opened(pair: Pair, **settings: Any) -> Iterator[House]:
    """Serving on the pair's engine, which afterwards serves nobody."""
    engine, closet = pair.vllm.engine, Closet()
    about = WorkerSettings(model="tiny", **{"serve_address": "127.0.0.1", **settings})
    ended: list[BaseException] = []
    serving = Serving(about, SECRET, "tiny", engine, Adapters(closet, 64 << 20), ended.append)
    serving.start()
    try:
        yield House(pair, serving, closet)
    finally:
        serving.drain(0)
        engine.owner.run(lambda: setattr(engine.owner, "_served", None))
    assert not ended, f"the engine ended: {ended}"
