"""Settings of methods whose estimator is their own: the name says how losses become weights. Knows no arithmetic."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from db.contract.methods.base import MethodSettings


class WeighedSettings(MethodSettings):
    """`eps` is the probe radius, `queries` the directions a step. Losses are weighed by sign or against their own
    deviation, so there is no slope to clip; the move is plain: no optimizer keeps anything."""

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"eps": (1e-6, 1), "learning_rate": (1e-9, 10)}
    queries: int = Field(default=1, ge=1, le=64)
    eps: float = Field(gt=0, le=1)


class WeighedAdapterSettings(WeighedSettings):
    """The same on the adapter's own entries. `a_factor` is what A's noise is multiplied by: 0 leaves A as it began and
    moves B alone."""

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {**WeighedSettings.ranges, "a_factor": (0, 10)}
    a_factor: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False)
