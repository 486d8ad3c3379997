"""Settings and presets of a descent on an activation basis. Its arithmetic is in
`worker/zo/methods/activation_basis.py`."""

from typing import ClassVar, Literal

from db.contract.methods.base import About, DescentSettings, Line, Preset
from db.contract.methods.profiled import MAKES, ProfiledSettings, ProfileKind

# First match wins. Not measured of other bases.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 1e-3})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 2e-3})),
)


class ActivationBasis(ProfiledSettings, DescentSettings):
    """A's rows are the leading directions of each module's inputs, from the profile, and stay; B alone is probed and
    moved (AGZO, arXiv 2601.17261, and ZO-Act, arXiv 2607.01125, as they are cited: neither was read)."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="A = leading directions of each module's inputs, fixed; g = mean c z on B",
        forwards="2q; one_sided q + 1; population q",
        state="-; adam 2 vectors",
        use="many jobs of one base",
        source="arXiv 2601.17261, 2607.01125, as cited",
        needs=MAKES,
    )
    reads: ClassVar[tuple[ProfileKind, ...]] = ("basis",)
    name: Literal["activation_basis"] = "activation_basis"
    optimizer: Literal["sgd", "adam"] = "sgd"
