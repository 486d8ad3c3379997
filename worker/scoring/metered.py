"""A scorer that counts what passes through another. Knows metrics, no engine."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from worker import metrics
from worker.engine.prompt_cache import PromptCache
from worker.forwards import Scoring, finished
from worker.scoring.scorer import Watched
from worker.types import Loss, Trial

if TYPE_CHECKING:  # a worker without an engine does not load its libraries
    from worker.engine.owner import Owner
    from worker.scoring.engine_scorer import EngineScorer

HALF = 60.0  # seconds of scoring after which a batch counts half in the rate


class MeteredScorer:
    """A Scorer that counts what passes through another, and what becomes of the prompts in its cache.

    `rate` is in scored tokens a second of scoring, of late, the time not counted that it stood for what is served; None
    before it has scored. `engine` is what the scorer stands on, where it can serve too.
    """

    def __init__(
        self, scorer: Watched, model: str, cache: PromptCache[Any] | None = None, engine: "EngineScorer | None" = None
    ) -> None:
        self._scorer, self._model, self._cache, self.engine = scorer, model, cache, engine
        self._seen = dict.fromkeys(metrics.OUTCOMES, 0)
        self._tokens = self._seconds = 0.0
        self.rate: float | None = None

    @property
    def stood(self) -> float:
        """Seconds up to now that scoring has stood because the engine served. For any thread to ask."""
        return self.engine.owner.paused if self.engine is not None else 0.0

    @property
    def serving_since(self) -> float | None:
        """time.monotonic() at which the engine began the step of serving that it is at, if it is at one."""
        return self.engine.owner.serving_since if self.engine is not None else None

    @property
    def capacity(self) -> int:
        return self._scorer.capacity

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        """As the scorer's own; an empty call is neither scored nor counted."""
        return finished(self.start(trials))

    def start(self, trials: Sequence[Trial]) -> Scoring:
        """As the scorer's own. What is given up on the way is not counted, for it was no batch."""
        scoring, seconds = self._scorer.start(trials), [0.0]

        def timed(act: Callable[[], None]) -> None:
            started, stood = time.perf_counter(), self.stood
            act()
            seconds[0] += max(0.0, time.perf_counter() - started - (self.stood - stood))

        def losses() -> list[Loss]:
            if trials:
                self._count(len(trials), seconds[0])
                self._note(sum(t.tokens for t in trials), seconds[0])
            return scoring.losses

        return scoring.around(timed, losses)

    def _note(self, tokens: int, seconds: float) -> None:
        kept = 0.5 ** (seconds / HALF)
        self._tokens, self._seconds = kept * self._tokens + tokens, kept * self._seconds + seconds
        if self._seconds > 0:
            self.rate = self._tokens / self._seconds

    def _count(self, trials: int, seconds: float) -> None:
        metrics.scoring_seconds.labels(self._model).observe(seconds)
        metrics.forwards.labels(self._model).inc(trials)
        waves = -(-trials // self.capacity)
        metrics.batch_fill.labels(self._model).observe(trials / (waves * self.capacity))
        metrics.adapters_per_batch.labels(self._model).observe(min(trials, self.capacity))
        self._count_prompts()

    def sound(self) -> bool:
        """As the scorer's own; not counted."""
        return self._scorer.sound()

    def _count_prompts(self) -> None:
        if self._cache is None:
            return
        now = {"found": self._cache.found, "computed": self._cache.missed, "evicted": self._cache.evicted}
        for outcome, count in now.items():
            metrics.prompts.labels(self._model, outcome).inc(count - self._seen[outcome])
        self._seen = now
        metrics.prompt_bytes.labels(self._model).set(self._cache.held)

    def close(self) -> None:
        self._scorer.close()


class OwnerMeter:
    """Counts what an engine's owner has come to, whenever it is told: on the engine's thread."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._seen = (0.0, 0.0, 0.0, 0.0)

    def __call__(self, owner: "Owner") -> None:
        now = owner.served, owner.trained, owner.paused, float(owner.pauses)
        served, trained, stood, pauses = (max(0.0, x - y) for x, y in zip(now, self._seen, strict=True))
        self._seen = now
        metrics.engine_seconds.labels(self._model, "serving").inc(served)
        metrics.engine_seconds.labels(self._model, "training").inc(trained)
        metrics.paused_seconds.labels(self._model).inc(stood)
        metrics.pauses.labels(self._model).inc(pauses)
