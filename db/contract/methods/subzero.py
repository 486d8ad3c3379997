"""SubZero's settings and presets. Its arithmetic is in `worker/zo/methods/subzero.py`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from db.contract.methods.base import About, Line, Preset, ProbedSettings
from db.contract.methods.windowed import WindowedSettings

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-3, "learning_rate": 5e-4})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-3, "learning_rate": 1e-3})),
)


class SubZero(WindowedSettings, ProbedSettings):
    """SubZero (arXiv 2410.08989): U Z V^T of rank `window_rank`, Z fresh each step, U and V redrawn every `nu` (the
    paper's T0); V goes where `refresh` says, U is always fresh."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="dW = sqrt(mn)/r U Z V^T; Z fresh each step, U, V orthonormal each nu",
        forwards="2q; one_sided q + 1; population q",
        state="U: outputs x r a module",
        use="few numbers a module (r^2): less noise, less reach",
        source="arXiv 2410.08989",
    )
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {**ProbedSettings.ranges, **WindowedSettings.ranges}
    name: Literal["subzero"] = "subzero"
