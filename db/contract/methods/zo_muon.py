"""ZO-Muon's settings and presets. Its arithmetic is in `worker/zo/methods/zo_muon.py`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, Line, Preset
from db.contract.methods.windowed import WindowedSettings

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-3, "learning_rate": 2e-2, "schedule": "linear"})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-3, "learning_rate": 5e-2, "schedule": "linear"})),
)


class ZoMuon(WindowedSettings):
    """ZO-Muon (arXiv 2602.17155): P Psi of rank `window_rank`, P redrawn every `nu` steps, `queries` one-sided probes
    with one P; W moves along the estimate's matrix sign, so that `learning_rate` is the move's largest singular
    value."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="W <- W - lr P msign(mean c Psi); P orthonormal each nu, Psi fresh",
        forwards="q + 1",
        state="-",
        use="moves of one size whatever the losses' scale",
        source="arXiv 2602.17155",
    )
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        **WindowedSettings.ranges,
        "eps": (1e-6, 1),
        "learning_rate": (1e-9, 10),
    }
    name: Literal["zo_muon"] = "zo_muon"
    queries: int = Field(default=4, ge=1, le=64)
    eps: float = Field(gt=0, le=1)

    @property
    def probes(self) -> int:
        """The centre, and one probe a query."""
        return self.queries + 1
