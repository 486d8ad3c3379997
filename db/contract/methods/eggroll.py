"""EGGROLL's settings, the rule between them, and presets. Its arithmetic is in `worker/zo/methods/eggroll.py`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, DescentSettings, Line, Preset
from db.contract.refusal import Unfit

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=300, settings={"eps": 1e-3, "learning_rate": 1e-4, "schedule": "linear"})),
    Line("*", "*", "answer", Preset(steps=300, settings={"eps": 1e-3, "learning_rate": 2e-4, "schedule": "linear"})),
)


class Eggroll(DescentSettings):
    """EGGROLL (arXiv 2511.16652) with V shared: `queries` members U_i V^T of rank `window_rank`, V redrawn every `nu`
    steps as LOZO's is; `refresh` says where the new V goes, `clip` bounds a score. As LOZO, it takes no adam."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="dW = sqrt(q) mean z-score(L) U_i V^T",
        forwards="q",
        state="-; momentum 1 vector",
        use="an evolution strategy on W",
        source="arXiv 2511.16652, V shared",
    )
    # eps / sqrt(window_rank) is what a probe moves by.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        **DescentSettings.ranges,
        "eps": (1e-5, 1),
        "nu": (1, 1_000_000),
    }
    name: Literal["eggroll"] = "eggroll"
    estimator: Literal["population"] = "population"
    optimizer: Literal["sgd", "momentum"] = "sgd"
    queries: int = Field(default=30, ge=1, le=64)
    nu: int = Field(default=50, ge=1)
    window_rank: int = Field(default=1, ge=1, le=64)
    refresh: Literal["bank", "freeze"] = "bank"

    def check(self, rank: int) -> None:
        super().check(rank)
        if self.window_rank > rank:
            raise Unfit("window_rank", "window_rank must not exceed rank: the window lives inside the adapter")
