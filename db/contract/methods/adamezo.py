"""AdaMeZO's settings and presets. Its arithmetic is in `worker/zo/methods/adamezo.py`."""

from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, AdapterSettings, Line, Preset

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 1e-3})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 2e-3})),
)


class Adamezo(AdapterSettings):
    """AdaMeZO (arXiv 2605.00650): Adam whose moments are rebuilt at each step, from the slopes of `window` of the last.
    It has no choice of optimizer: AMSGrad's maximum goes back further than any window."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="Adam, its moments those of the last K steps",
        forwards="2q; one_sided q + 1; population q",
        state="K (q + 1) numbers",
        use="adam where two vectors are too many",
        source="arXiv 2605.00650",
    )
    name: Literal["adamezo"] = "adamezo"
    window: int = Field(default=10, ge=1, le=100)
