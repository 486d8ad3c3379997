"""ZO-SGD-Sign's settings and presets. Its arithmetic is `worker/zo/estimators.py`'s."""

from typing import ClassVar, Literal

from db.contract.methods.base import About, Line, Preset
from db.contract.methods.weighed import WeighedAdapterSettings

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 1e-3, "schedule": "linear"})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 2e-3, "schedule": "linear"})),
)


class Sign(WeighedAdapterSettings):
    """ZO-SGD-Sign (arXiv 2402.11592) on every entry of A and B: a direction counts by its slope's sign alone."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="g = mean sign(c) z", forwards="2q", state="-", use="losses with outliers", source="arXiv 2402.11592"
    )
    name: Literal["sign"] = "sign"

    @property
    def probes(self) -> int:
        return 2 * self.queries
