"""Settings of methods on an adapter's own entries that are no descent with an optimizer. Knows no arithmetic."""

from collections.abc import Mapping
from typing import ClassVar

from db.contract.methods.base import HALVES, HalvesSettings, Positive, ProbedSettings


class ProbingSettings(HalvesSettings):
    """`eps` is the probe radius, `clip` bounds the absolute projected gradient |c|. There is no optimizer: what such a
    method does between estimate and move is its own."""

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {**ProbedSettings.ranges, **HALVES}
    clip: Positive | None = None
