"""HiZOO's settings and presets. Its arithmetic is in `worker/zo/methods/hizoo.py`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, Line, Preset
from db.contract.methods.probing import ProbingSettings

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=700, settings={"eps": 1e-2, "learning_rate": 5e-4})),
    Line("*", "*", "answer", Preset(steps=700, settings={"eps": 1e-2, "learning_rate": 1e-3})),
)


class Hizoo(ProbingSettings):
    """HiZOO (arXiv 2402.15173): directions are scaled by H^-1/2, H an average of what the diagonal of the Hessian looks
    like along them, of which each step adds `smoothing`."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="d = H^-1/2 z; H <- (1-a) H + a |L+ + L- - 2 L0| / 2 eps^2 H z^2",
        forwards="3",
        state="H, 1 vector",
        use="entries of unlike curvature",
        source="arXiv 2402.15173",
    )
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {**ProbingSettings.ranges, "smoothing": (1e-12, 0.5)}
    name: Literal["hizoo"] = "hizoo"
    smoothing: float = Field(default=1e-3, gt=0, lt=1)

    @property
    def probes(self) -> int:
        return 3
