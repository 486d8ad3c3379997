"""Settings of methods on an adapter's own entries that are no descent with an optimizer. Knows no arithmetic."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from db.contract.methods.base import AdapterSettings, MethodSettings, Positive

RANGES = AdapterSettings.ranges


class FactoredSettings(MethodSettings):
    """`a_factor` is what A's noise is multiplied by: 0 leaves A as it began and moves B alone."""

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {k: RANGES[k] for k in ("learning_rate", "a_factor")}
    a_factor: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False)


class ProbingSettings(FactoredSettings):
    """`eps` is the probe radius, `clip` bounds the absolute projected gradient |c|. There is no optimizer: what such a
    method does between estimate and move is its own."""

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        k: RANGES[k] for k in ("eps", "learning_rate", "clip", "a_factor")
    }
    eps: float = Field(gt=0, le=1)
    clip: Positive | None = None
