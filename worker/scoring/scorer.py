"""The seam between training and the engine. Knows trials and losses, no engine."""

from collections.abc import Sequence
from typing import Protocol

from worker.forwards import Scoring
from worker.types import Loss, Trial


class Scorer(Protocol):
    """Scores probes with forward passes. Losses come back in the order of the trials, one each; losses that are not
    finite are returned, not raised. A trial's loss does not depend on which others share its batch, up to the noise
    floor of the engine."""

    @property
    def capacity(self) -> int:
        """The efficient width: probes that fit one batch; larger calls go in waves."""
        ...

    def start(self, trials: Sequence[Trial]) -> Scoring:
        """Begin to score; nothing is computed yet. Raises ValueError for a trial that the model cannot take."""
        ...

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        """`finished(start(trials))`: all waves in one go."""
        ...

    def close(self) -> None: ...


class Watched(Scorer, Protocol):
    """A scorer with a standing canary. Its `score` raises EngineOff where the canary is off."""

    def sound(self) -> bool:
        """Whether the canary, scored alone and now, is what it was at the start. Raises nothing."""
        ...
