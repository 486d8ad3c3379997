"""What the worker counts, for Prometheus. Labels are the base model and the tenant's class, never an id."""

import time
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from worker.scoring.base import Scorer
from worker.scoring.prompts import PromptCache
from worker.types import Loss, Trial

MODEL = ("model",)
TENANT = ("model", "tenant_class")
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
WAITS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0, 14400.0)
OUTCOMES = ("found", "computed", "evicted")
TENTHS = tuple(n / 10 for n in range(1, 11))

scored_tokens = Counter("onward_scored_tokens_total", "Tokens whose forward pass was paid for.", TENANT)
steps = Counter("onward_steps_total", "Steps taken: ask, score, tell.", TENANT)
forwards = Counter("onward_forwards_total", "Trials scored: one probe on one minibatch.", MODEL)
step_seconds = Histogram("onward_step_seconds", "Time of one step of the cohort.", MODEL, buckets=SECONDS)
scoring_seconds = Histogram("onward_scoring_seconds", "Part of a step spent in the engine.", MODEL, buckets=SECONDS)
batch_fill = Histogram("onward_batch_fill", "Trials over the places of the waves they took.", MODEL, buckets=TENTHS)
adapters_per_batch = Histogram(
    "onward_adapters_per_batch", "Adapters in one engine batch.", MODEL, buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
queue_wait_seconds = Histogram(
    "onward_queue_wait_seconds", "From a job's creation to its first claim.", TENANT, buckets=WAITS
)
prompts = Counter(
    "onward_prompts_total", "Prompts that activated adapters continue, found or computed.", (*MODEL, "outcome")
)
prompt_bytes = Gauge("onward_prompt_bytes", "Bytes of keys and values of prompts that are kept.", MODEL)
lease_expiries = Counter("onward_lease_expiries_total", "Jobs taken over from a lease that had expired.", MODEL)
fenced_writes = Counter("onward_fenced_writes_total", "Writes refused because the fencing token was old.", MODEL)
nonfinite_losses = Counter("onward_nonfinite_losses_total", "Runs ended by losses that were not finite.", MODEL)
journal_lag_seconds = Gauge("onward_journal_lag_seconds", "Age of the oldest step not yet committed.", MODEL)
replay_seconds = Histogram("onward_replay_seconds", "Time to rebuild a run from its journal.", MODEL, buckets=SECONDS)
published_adapters = Counter("onward_published_adapters_total", "Adapters published.", TENANT)
resident_runs = Gauge("onward_resident_runs", "Runs kept in memory between slices.", MODEL)


def zero(model: str) -> None:
    """Make every series of `model` visible before its first event, so that a rate starts from 0."""
    for family in (forwards, lease_expiries, fenced_writes, nonfinite_losses):
        family.labels(model)
    for outcome in OUTCOMES:
        prompts.labels(model, outcome)
    prompt_bytes.labels(model).set(0)
    journal_lag_seconds.labels(model).set(0)
    resident_runs.labels(model).set(0)


class MeteredScorer:
    """A Scorer that counts what passes through another, and what becomes of the prompts in its cache."""

    def __init__(self, scorer: Scorer, model: str, cache: PromptCache[Any] | None = None) -> None:
        self._scorer, self._model, self._cache = scorer, model, cache
        self._seen = dict.fromkeys(OUTCOMES, 0)

    @property
    def capacity(self) -> int:
        return self._scorer.capacity

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        """As the scorer's own; an empty call is neither scored nor counted."""
        if not trials:
            return []
        started = time.perf_counter()
        losses = self._scorer.score(trials)
        scoring_seconds.labels(self._model).observe(time.perf_counter() - started)
        forwards.labels(self._model).inc(len(trials))
        waves = -(-len(trials) // self.capacity)
        batch_fill.labels(self._model).observe(len(trials) / (waves * self.capacity))
        adapters_per_batch.labels(self._model).observe(min(len(trials), self.capacity))
        self._count_prompts()
        return losses

    def _count_prompts(self) -> None:
        if self._cache is None:
            return
        now = {"found": self._cache.found, "computed": self._cache.missed, "evicted": self._cache.evicted}
        for outcome, count in now.items():
            prompts.labels(self._model, outcome).inc(count - self._seen[outcome])
        self._seen = now
        prompt_bytes.labels(self._model).set(self._cache.held)

    def close(self) -> None:
        self._scorer.close()
