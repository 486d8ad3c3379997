"""Serving of one worker, put together: vLLM's classes over the engine's thread, adapters, and the port. Begins, drains and
ends. Knows settings; no request."""

import asyncio
import socket
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import structlog

from worker import metrics
from worker.engine.engine import Engine
from worker.engine.owner import Owner
from worker.serving import errors
from worker.serving.asks import Ask, Reason
from worker.serving.http import Answer, application
from worker.serving.server import Server
from worker.serving.vllm_client import Client
from worker.serving.vllm_openai import OpenAI
from worker.settings import WorkerSettings
from worker.types import Wearable

log = structlog.get_logger("worker.serving.open")
MAKERS: Final = 2  # adapters that are made at one time
POLL: Final = 0.05  # seconds


class Makes(Protocol):
    def get(self, name: str) -> Wearable: ...


class Serving:
    """What a worker serves, from construction, when its port is taken, over `start`, when it answers, to `stop`.

    Raises OSError where the port is taken, ValueError for a parser of tools that vLLM has not.
    """

    def __init__(self, settings: WorkerSettings, model: str, owner: Owner, engine: Engine, adapters: Makes) -> None:
        secret = settings.serve_secret.get_secret_value().strip() if settings.serve_secret is not None else ""
        if not secret:
            raise ValueError("there is no ONWARD_SERVE_SECRET to serve with")
        self.model, self.draining = model, False
        self._adapters = adapters
        self._context = engine.context
        self._client = owner.run(
            lambda: Client(engine.served, engine.places, owner, settings.serve_queue_tokens, model)
        )
        self._openai = OpenAI(self._client, model, settings.serve_tool_parser or None)
        self._makers = ThreadPoolExecutor(MAKERS, thread_name_prefix="adapters")
        self._making: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._server = Server(application(self, secret), settings.serve_port)
        self._url = f"http://{settings.serve_address or socket.gethostname()}:{self._server.port}"
        owner.serve(self._client.desk)

    def start(self) -> None:
        self._server.start()
        log.info("serving", url=self._url)

    @property
    def load(self) -> dict[str, Any]:
        desk = self._client.desk
        return {"queued_tokens": desk.queued_tokens, "held": list(desk.held), "context": self._context}

    @property
    def offer(self) -> dict[str, Any]:
        """For this worker's row. Empty: it takes no more."""
        if self.draining or self._client.errored:
            return {}
        desk = self._client.desk
        return {
            "url": self._url, "held": list(desk.held), "queued_tokens": desk.queued_tokens,
            "tools": self._openai.tools, "answer": True,
        }  # fmt: skip

    async def chat(self, ask: Ask, said: dict[str, Any]) -> Answer:
        return await self._openai.chat(ask, said)

    async def completion(self, ask: Ask, said: dict[str, Any]) -> Answer:
        return await self._openai.completion(ask, said)

    async def wearable(self, name: str, salt: str) -> Wearable:
        """The adapter of this name, made where it is not in memory: one at a time for a tenant, so that nobody's many
        keep others waiting. Raises Refused."""
        loop = asyncio.get_running_loop()
        async with self._making[salt]:
            return await loop.run_in_executor(self._makers, self._adapters.get, name)

    def end(self, ask: Ask, reason: Reason, error: errors.Refused | None = None) -> None:
        self._client.end(ask, reason, error)

    def refuse_more(self) -> None:
        """No request is taken from now on; may be called from a signal's handler."""
        self.draining = True

    def drain(self, seconds: float) -> None:
        """Refuse what comes, wait so long for what runs, end the rest with an error, and close the port."""
        self.refuse_more()
        until = time.monotonic() + seconds
        while not self._client.idle and time.monotonic() < until:
            threading.Event().wait(POLL)
        if (loop := self._server.loop) is not None and not self._client.idle:
            loop.call_soon_threadsafe(self._client.end_all, "drain", errors.draining())
        self._server.stop()
        self._makers.shutdown(wait=False, cancel_futures=True)


__all__ = ("Serving", "metrics")
