"""How fast a job goes, all waits included, and when it will be done. Knows time and step numbers only."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

HORIZON: Final = 600.0  # seconds: what is longer ago fades


@dataclass
class Pace:
    """`seconds` and `steps` are what the job took, faded: everything alike for the first ten minutes, then the last ten
    minutes most. Waits between slices count, a pause does not. `step` was reached at `at` (time.monotonic())."""

    step: int
    at: float | None = None
    seconds: float = 0.0
    steps: float = 0.0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.wake()

    def finish(self, step: int, total: int) -> datetime | None:
        """The time at which `total` steps will be done: see `left`."""
        left = self.left(step, total)
        return None if left is None else datetime.now(UTC) + timedelta(seconds=left)

    def left(self, step: int, total: int) -> float | None:
        """Seconds until `total` steps will be done if it goes on like this, now that `step` are; None where none was
        seen to be taken."""
        now = self.clock()
        if step > self.step:
            if self.at is not None:
                passed = now - self.at
                kept = math.exp(-passed / HORIZON)
                self.seconds = self.seconds * kept + passed
                self.steps = self.steps * kept + step - self.step
            self.step, self.at = step, now
        if not self.steps:
            return None
        return self.seconds / self.steps * (total - step)

    def rest(self) -> None:
        """What passes from now on is nobody's work."""
        self.at = None

    def wake(self) -> None:
        """It goes on."""
        self.at = self.clock() if self.at is None else self.at


def went_on(step: int, total: int, committed: datetime | None, foretold: datetime | None) -> Pace:
    """The pace of a job that another process had up to `step` of `total` steps, committed at `committed`, when it was
    `foretold` to be done."""
    if committed is None or foretold is None or step >= total or foretold <= committed:
        return Pace(step)
    each = (foretold - committed).total_seconds() / (total - step)
    seconds = min(HORIZON, each * step)
    return Pace(step, seconds=seconds, steps=seconds / each)
