"""Evolution strategy's settings and presets. Its arithmetic is `worker/zo/estimators.py`'s."""

from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, Line, Preset
from db.contract.methods.weighed import WeighedAdapterSettings

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=300, settings={"eps": 1e-2, "learning_rate": 1e-2, "schedule": "linear"})),
    Line("*", "*", "answer", Preset(steps=300, settings={"eps": 1e-2, "learning_rate": 2e-2, "schedule": "linear"})),
)


class Es(WeighedAdapterSettings):
    """An evolution strategy (arXiv 2509.24372) on every entry of A and B: `queries` is its population."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="g = mean z-score(L) z",
        forwards="q",
        state="-",
        use="losses of unknown scale and shift",
        source="arXiv 2509.24372",
    )
    name: Literal["es"] = "es"
    queries: int = Field(default=30, ge=2, le=64)  # one loss has no deviation

    @property
    def probes(self) -> int:
        return self.queries
