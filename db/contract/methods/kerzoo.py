"""KerZOO's settings and presets. Its arithmetic is in `worker/zo/methods/kerzoo.py`."""

from typing import ClassVar, Literal

from db.contract.methods.base import About, AdapterSettings, Line, Preset

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 2e-2, "learning_rate": 2e-4})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 2e-2, "learning_rate": 4e-4})),
)


class Kerzoo(AdapterSettings):
    """KerZOO (arXiv 2505.18886) on every entry of A and B: radii of up to `eps`, drawn; `clip` bounds a direction's
    weight |c K(r)|."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="g = mean c K(r) z, probes at eps r z",
        forwards="2q",
        state="-; momentum 1 vector, adam 2",
        use="large eps: bias eps^4",
        source="arXiv 2505.18886",
    )
    name: Literal["kerzoo"] = "kerzoo"
    estimator: Literal["two_point"] = "two_point"
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
