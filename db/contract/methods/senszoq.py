"""SensZOQ's settings and presets. Its arithmetic is in `worker/zo/methods/senszoq.py`."""

from typing import ClassVar, Literal

from db.contract.methods.base import About, DescentSettings, Line, Preset
from db.contract.methods.profiled import MAKES, ProfiledSettings, ProfileKind

# First match wins. Not measured of other bases.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 1e-3})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 2e-3})),
)


class Senszoq(ProfiledSettings, DescentSettings):
    """SensZOQ (arXiv 2406.02913): only the entries of a static mask are probed and moved, those with the largest Fisher
    information when the profile was made. A starts as it did there, whatever the job's seed: the mask is of those
    entries."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="z of the profile's entries (top share by Fisher), 0 elsewhere",
        forwards="2q; one_sided q + 1; population q",
        state="-; momentum 1 vector, adam 2",
        use="many jobs of one base",
        source="arXiv 2406.02913",
        needs=MAKES,
    )
    reads: ClassVar[tuple[ProfileKind, ...]] = ("mask",)
    name: Literal["senszoq"] = "senszoq"
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
