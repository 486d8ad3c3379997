"""ZO-SGD-Cons' settings and presets. Its arithmetic is in `worker/zo/methods/cons.py`."""

from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, Line, Preset
from db.contract.methods.probing import ProbingSettings

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=500, settings={"eps": 1e-2, "learning_rate": 1e-3})),
    Line("*", "*", "answer", Preset(steps=500, settings={"eps": 1e-2, "learning_rate": 2e-3})),
)


class Cons(ProbingSettings):
    """ZO-SGD-Cons (arXiv 2402.11592): `queries` probe pairs, then theta and a step either way are scored, and the best
    is kept. It has no momentum: what a step did not follow would be carried on."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="best of theta, theta - lr g, theta + lr g",
        forwards="2q + 3",
        state="-",
        use="a loss that must not rise on its rows",
        source="arXiv 2402.11592",
    )
    name: Literal["cons"] = "cons"
    queries: int = Field(default=1, ge=1, le=64)

    @property
    def probes(self) -> int:
        return 2 * self.queries + 3
