"""Requests that go on while containers are restarted, by the `openai` client as it comes: its own two retries included.

A request counts as failed where those did not save it. Knows no engine.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import openai
from openai import OpenAI


@dataclass
class Tally:
    """`longest` in seconds, retries included; `errors` counts what failed, by its kind."""

    requests: int = 0
    failed: int = 0
    longest: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)


class Load:
    """One thread a kind of request, one request at a time each, until the end of the `with`; `during(name)` has what
    follows counted under that name, and `settled` waits for what has begun before."""

    def __init__(self, kinds: dict[str, Callable[[], object]], pause: float = 0.05) -> None:
        self._kinds, self._pause = kinds, pause
        self._over, self._name = threading.Event(), "before"
        self._lock, self._turns = threading.Lock(), {kind: threading.Lock() for kind in kinds}
        self.tallies: dict[str, dict[str, Tally]] = {}
        self._threads = [threading.Thread(target=self._go, args=(kind,), daemon=True) for kind in kinds]

    def during(self, name: str) -> None:
        self._name = name

    def settled(self) -> None:
        """Once no request is under way that began before this: a retry may come half a minute later, and meets what is
        done then."""
        for turn in self._turns.values():
            with turn:
                pass

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _go(self, kind: str) -> None:
        while not self._over.wait(self._pause):
            with self._turns[kind]:
                name, begun, error = self._name, time.monotonic(), ""
                try:
                    self._kinds[kind]()
                except openai.APIStatusError as raised:
                    error = f"{raised.status_code} {raised.code or ''}".strip()
                except openai.OpenAIError as raised:
                    error = type(raised).__name__
            with self._lock:
                tally = self.tallies.setdefault(name, {}).setdefault(kind, Tally())
                tally.requests += 1
                tally.longest = max(tally.longest, time.monotonic() - begun)
                if error:
                    tally.failed += 1
                    tally.errors[error] = tally.errors.get(error, 0) + 1


def reads(client: OpenAI, job: str) -> Callable[[], object]:
    """What a tenant's program does while it waits: the job, its events, the models."""
    asked = (
        lambda: client.fine_tuning.jobs.retrieve(job),
        lambda: client.fine_tuning.jobs.list_events(job, limit=5),
        client.models.list,
    )
    turns = iter(range(10**9))
    return lambda: asked[next(turns) % len(asked)]()


def chats(client: OpenAI, model: str) -> Callable[[], object]:
    return lambda: client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Say yes."}], max_completion_tokens=2, temperature=0
    )
