"""The learning rate of each step. Knows step numbers, no vector.

Scalar float64 with +, -, * and / only, which IEEE 754 rounds exactly: no `cos`, whose last bit belongs to the machine.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """Learning rate of each step: a linear rise over `warmup` steps, then constant, or down to 0 at `steps`."""

    peak: float
    kind: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    steps: int = 1

    def halved(self, times: int) -> "Schedule":
        """The same with its peak times 2**-times, which is exact."""
        return replace(self, peak=self.peak * 0.5**times)

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * ((step + 1) / self.warmup)
        if self.kind == "constant":
            return self.peak
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.peak * (1 - progress if self.kind == "linear" else half_cosine(progress))


def half_cosine(x: float) -> float:
    """(1 + cos(pi x)) / 2 for 0 <= x <= 1, within 1e-15, by the series of cos at pi x / 2 squared."""
    square = (math.pi / 2 * x) * (math.pi / 2 * x)
    total = 0.0
    for k in range(26, 0, -2):  # Horner: 1 - s/(1 2) (1 - s/(3 4) (1 - ...))
        total = square / ((k - 1) * k) * (1 - total)
    return (1 - total) * (1 - total)
