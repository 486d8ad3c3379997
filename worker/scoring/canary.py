"""A standing canary: one fixed trial scored among tenants' trials now and then, against its loss alone.

What it differs by is what company does to a loss, measured on the work of the day: a promise that is watched, and an
engine that breaks it is not trained on.
"""

import math
import time
from collections.abc import Callable, Sequence

from worker.forwards import Scoring, finished
from worker.scoring.random_probes import probes
from worker.scoring.scorer import Scorer
from worker.types import EngineOff, Loss, Module, Trial

RANK = 2


def trial(modules: Sequence[Module], context: int, vocab: int) -> Trial:
    """A random probe on every module, three texts of at most 24 tokens; the same for a model at every start."""
    made = probes(modules, RANK, context, vocab, seed=0)
    return next(t for t in made if t.layout is not None and not t.layout.invocation)


class Canary:
    """A Scorer that adds `trial` to a batch of another, at most once in `every` seconds, and tells `seen` by how many
    nats a token its loss then differs from its loss alone. `limit` (nats a token) is what it may differ by."""

    def __init__(
        self, scorer: Scorer, trial: Trial, every: float, seen: Callable[[float], None], limit: float = math.inf
    ) -> None:
        self._scorer, self._trial, self._every, self._seen, self._limit = scorer, trial, every, seen, limit
        (alone,) = scorer.score([trial])
        self._alone, self._due = alone.mean, time.monotonic()

    @property
    def capacity(self) -> int:
        return self._scorer.capacity

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        """As the other's, in the order of `trials`; an empty call stays empty. Raises EngineOff where the canary among
        them is off: no loss of that batch is returned."""
        return finished(self.start(trials))

    def start(self, trials: Sequence[Trial]) -> Scoring:
        """The same wave by wave, the canary among them where one is due; `losses` raise EngineOff. Of a scoring that is
        given up it is not heard, and the next has one."""
        if not trials or time.monotonic() < self._due:
            return self._scorer.start(trials)
        scoring = self._scorer.start([*trials, self._trial])
        return scoring.around(lambda act: act(), lambda: self._heard(scoring.losses))

    def _heard(self, losses: list[Loss]) -> list[Loss]:
        """The losses without the canary's, which is compared."""
        *others, canary = losses
        self._due = time.monotonic() + self._every
        off = self._off(canary)
        self._seen(off)
        if off > self._limit:
            raise EngineOff(f"the canary is off by {off:.3g} nats a token, {self._limit:g} are allowed")
        return others

    def sound(self) -> bool:
        """Whether the canary, alone and now, has the loss that it had at the start; an engine that raises has not."""
        try:
            (canary,) = self._scorer.score([self._trial])
        except Exception:
            return False
        return self._off(canary) <= self._limit and math.isfinite(self._off(canary))

    def _off(self, canary: Loss) -> float:
        """Nats a token; infinite for what is not a number, which would be above no limit."""
        off = abs(canary.mean - self._alone)
        return off if math.isfinite(off) else math.inf

    def close(self) -> None:
        self._scorer.close()
