"""What the engine's side of serving counts, for Prometheus and for whoever must wait. Knows metrics, no engine."""

import time
from collections.abc import Sequence
from typing import Final

from worker import metrics
from worker.serving.asks import Reason

LATELY: Final = 60.0  # seconds
MOST_WAIT: Final = 60.0  # seconds that somebody is told to wait


class Counts:
    """Of one base model. For one thread."""

    def __init__(self, model: str) -> None:
        self._model, self._evicted = model, 0
        self._seen = [(time.monotonic(), 0)]

    def aborted(self, reason: Reason) -> None:
        metrics.serve_aborts.labels(self._model, reason).inc()

    def queued(self, tokens: int) -> None:
        metrics.serve_queued_tokens.labels(self._model).set(tokens)

    def running(self, requests: int) -> None:
        metrics.serve_running.labels(self._model).set(requests)

    def began(self, arrived: float) -> None:
        """A request enters the engine that arrived then (time.monotonic())."""
        metrics.serve_wait_seconds.labels(self._model).observe(time.monotonic() - arrived)

    def prompt(self, tokens: int, cached: int) -> None:
        metrics.serve_prompt_tokens.labels(self._model, "cached").inc(cached)
        metrics.serve_prompt_tokens.labels(self._model, "computed").inc(tokens - cached)

    def first(self, seconds: float) -> None:
        """The first output of a streamed request came so long after its arrival."""
        metrics.serve_first_token_seconds.labels(self._model).observe(seconds)

    def next(self, seconds: float) -> None:
        """Another came so long after the last."""
        metrics.serve_inter_token_seconds.labels(self._model).observe(seconds)

    def generated(self, tokens: int) -> None:
        metrics.serve_tokens.labels(self._model).inc(tokens)

    def places(self, held: Sequence[str], evicted: int) -> None:
        """`evicted` counts since the start."""
        metrics.serve_adapters.labels(self._model).set(len(held))
        metrics.serve_adapters_evicted.labels(self._model).inc(evicted - self._evicted)
        self._evicted = evicted

    def ended(self, tokens: int) -> None:
        """A request has come to its end, with so many tokens in all."""
        now = time.monotonic()
        self._seen = [seen for seen in self._seen if seen[0] > now - LATELY] + [(now, tokens)]

    def wait(self, tokens: int) -> float:
        """Seconds, 1 to 60, that so many tokens take which wait, as the requests that have ended of late went."""
        took = max(time.monotonic() - self._seen[0][0], 1.0)
        rate = sum(n for _, n in self._seen) / took
        return min(max(tokens / rate if rate else MOST_WAIT, 1.0), MOST_WAIT)
