"""MeZO-GV's settings and presets. Its arithmetic is in `worker/zo/methods/guided.py`."""

from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, Line, Preset
from db.contract.methods.probing import ProbingSettings

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=500, settings={"eps": 1e-2, "learning_rate": 5e-4})),
    Line("*", "*", "answer", Preset(steps=500, settings={"eps": 1e-2, "learning_rate": 1e-3})),
)


class Guided(ProbingSettings):
    """MeZO-GV (arXiv 2601.04710): `pool` directions are tried, and a pair is measured along what they point to: with
    `pick` `contrast` the mean of the better half less the mean of the others, with `best` the best of them
    (MeZO-Greedy)."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="z = mean of the better half - mean of the others; c along z",
        forwards="n + 2",
        state="-",
        use="many cheap probes a step",
        source="arXiv 2601.04710",
    )
    name: Literal["guided"] = "guided"
    pool: int = Field(default=4, ge=2, le=64)
    pick: Literal["contrast", "best"] = "contrast"

    @property
    def probes(self) -> int:
        return self.pool + 2
