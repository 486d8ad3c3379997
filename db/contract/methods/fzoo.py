"""FZOO's settings and presets. Its arithmetic is in `worker/zo/methods/fzoo.py`."""

from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, Line, Preset
from db.contract.methods.weighed import WeighedAdapterSettings

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=500, settings={"eps": 1e-2, "learning_rate": 5e-3, "schedule": "linear"})),
    Line("*", "*", "answer", Preset(steps=500, settings={"eps": 1e-2, "learning_rate": 1e-2, "schedule": "linear"})),
)


class Fzoo(WeighedAdapterSettings):
    """FZOO (arXiv 2506.09034) on every entry of A and B. `deviation` is that of a sample (N - 1, as in the paper) or of
    a population (N, as in its code)."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="g = mean (L - L0) / std L * u, u of signs",
        forwards="q + 1",
        state="-",
        use="losses of unknown scale",
        source="arXiv 2506.09034",
    )
    name: Literal["fzoo"] = "fzoo"
    queries: int = Field(default=8, ge=2, le=64)  # one loss has no deviation
    deviation: Literal["sample", "population"] = "sample"

    @property
    def probes(self) -> int:
        return self.queries + 1
