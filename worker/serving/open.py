"""Serving of one worker, put together: vLLM's classes over the engine's thread, adapters, and the port. Begins, drains
and ends. Knows settings; no request."""

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from weakref import WeakValueDictionary

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from db.contract.tokens.base_model import Base
from db.store.seam import StoreAway
from worker import metrics
from worker.adapters.snapshots import Snapshots
from worker.engine.engine import Engine
from worker.runs.replay import Point
from worker.scoring.metered import MeteredScorer
from worker.serving import errors
from worker.serving.adapters import Adapters
from worker.serving.asks import Ask, Reason
from worker.serving.fit import Unfit
from worker.serving.http import Answer, application
from worker.serving.making import Maker, Unknown
from worker.serving.server import Server
from worker.serving.vllm_client import Client
from worker.serving.vllm_openai import OpenAI
from worker.settings import WorkerSettings
from worker.types import Wearable

log = structlog.get_logger("worker.serving.open")
MAKERS: Final = 2  # adapters that are made at one time
POLL: Final = 0.05  # seconds


def open_serving(
    settings: WorkerSettings,
    base: Base,
    scorer: MeteredScorer,
    factory: sessionmaker[Session],
    ended: Callable[[BaseException], None],
) -> "Serving | None":
    """What this worker serves: nothing without a secret, or without an engine that can. The sessions of `factory` carry
    the stores of files; `ended` is told, on the engine's thread, what ended the engine. Raises as `Serving` does."""
    engine = scorer.engine
    secret = settings.serve_secret.get_secret_value().strip() if settings.serve_secret is not None else ""
    if not secret or engine is None:
        return None
    maker = Maker(factory, base, settings.max_rank, Snapshots(settings.home / "snapshots"))
    adapters = Adapters(maker, settings.serve_adapter_bytes)
    return Serving(settings, secret, base.name, engine.engine, adapters, ended)


class Serving:
    """What a worker serves, from construction, when its port is taken, over `start`, when it answers, to `drain`.

    Raises OSError where the port is taken, KeyError for a parser of tools that vLLM has not.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        secret: str,
        model: str,
        engine: Engine,
        adapters: Adapters,
        ended: Callable[[BaseException], None],
    ) -> None:
        self.model, self.draining = model, False
        self._adapters, self._context, self._made = adapters, engine.context, 0
        owner, limit = engine.owner, settings.serve_queue_tokens
        self._client = owner.run(lambda: Client(engine.served, engine.places, owner, limit, model, ended))
        self._openai = OpenAI(self._client, model, settings.serve_tool_parser or None)
        self._makers = ThreadPoolExecutor(MAKERS, thread_name_prefix="adapters")
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._server = Server(application(self, secret), settings.serve_port)
        at = settings.serve_address or socket.gethostname()
        self._url = f"http://{f'[{at}]' if ':' in at else at}:{self._server.port}"
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

    def committed(self, job_id: str, point: Point) -> None:
        """A job that is trained here has come to this, and it is committed. From any thread."""
        self._adapters.offer(job_id, point)

    def forget(self, job_id: str) -> None:
        """Its tenant has deleted its adapter. From any thread."""
        self._adapters.forget(job_id)

    async def chat(self, ask: Ask, said: dict[str, Any]) -> Answer:
        return await self._openai.chat(ask, said)

    async def completion(self, ask: Ask, said: dict[str, Any]) -> Answer:
        return await self._openai.completion(ask, said)

    async def wearable(self, name: str, salt: str) -> Wearable:
        """The adapter of this name, made where it is not in memory: one at a time for a tenant, so that nobody's many
        keep others waiting. Raises Refused."""
        if (kept := self._adapters.kept(name)) is not None:
            return kept
        loop = asyncio.get_running_loop()
        try:
            async with self._making.setdefault(salt, asyncio.Lock()):
                made = await loop.run_in_executor(self._makers, self._adapters.get, name)
        except Unknown as error:
            raise errors.Refused(404, "adapter_unknown", str(error), "model") from None
        except Unfit as error:
            message = f"The adapter cannot be worn: {error}."
            raise errors.Refused(422, "adapter_unfit", message, "model") from None
        except (StoreAway, SQLAlchemyError) as error:
            log.warning("an adapter cannot be read", adapter=name, error=str(error).partition("\n")[0])
            raise errors.Refused(503, "adapter_away", "The adapter cannot be read now.", retry_after=5) from None
        metrics.serve_adapters_made.labels(self.model).inc(self._adapters.made - self._made)
        self._made = self._adapters.made
        return made

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
            time.sleep(POLL)
        if (loop := self._server.loop) is not None and not self._client.idle:
            loop.call_soon_threadsafe(self._client.end_all, "drain", errors.draining())
        self._server.stop()
        self._makers.shutdown(wait=False, cancel_futures=True)
