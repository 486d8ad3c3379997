"""A scorer and a cache that count on the way: forwards, and what prompts cost. Knows no cell."""

import time
from collections.abc import Sequence
from typing import Any, Final

from worker.engine.prompt_cache import PromptCache
from worker.forwards import Scoring
from worker.scoring.scorer import Scorer
from worker.types import Loss, Trial

PROMPT_BYTES: Final = 6 << 30


class Counting:
    """A scorer that counts the trials it is given: forward passes of a minibatch."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.trials = scorer, 0

    @property
    def capacity(self) -> int:
        return self.scorer.capacity

    def start(self, trials: Sequence[Trial]) -> Scoring:
        self.trials += len(trials)
        return self.scorer.start(trials)

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        self.trials += len(trials)
        return self.scorer.score(trials)

    def close(self) -> None:
        self.scorer.close()


class Kept:
    """Prompts of the torch scorer, kept, and what each cost: from its miss to its being put."""

    def __init__(self) -> None:
        self._cache: PromptCache[Any] = PromptCache(PROMPT_BYTES)
        self._missed = 0.0
        self.seconds: dict[bytes, float] = {}

    def get(self, scope: str, prompt: bytes) -> Any:
        found = self._cache.get(scope, prompt)
        self._missed = time.process_time()
        return found

    def put(self, scope: str, prompt: bytes, value: Any, size: int) -> Any:
        self.seconds[prompt] = time.process_time() - self._missed
        return self._cache.put(scope, prompt, value, size)
