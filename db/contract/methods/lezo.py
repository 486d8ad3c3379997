"""LeZO's settings and presets, random entries among them. Its arithmetic is in `worker/zo/methods/lezo.py`."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, AdapterSettings, Line, Preset, room_for
from db.contract.refusal import Unfit
from db.contract.tokens.architectures import Linear, layers

# Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 5e-4})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 1e-3})),
)


class Lezo(AdapterSettings):
    """LeZO (arXiv 2410.09823): a random share `density` of the layers, or of each tensor's entries (ZO-Bench, arXiv
    2402.11592), is probed and moved, another one every `mask_every` steps. It takes no momentum, which would move what
    the mask leaves out."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="z of random layers or entries, 0 elsewhere",
        forwards="2q; one_sided q + 1; population q",
        state="-",
        use="see the study: behind es there",
        source="arXiv 2410.09823, 2402.11592",
    )
    name: Literal["lezo"] = "lezo"
    optimizer: Literal["sgd"] = "sgd"
    by: Literal["layers", "entries"] = "layers"
    density: float = Field(default=0.5, gt=0, le=1)
    mask_every: int = Field(default=1, ge=1, le=1_000_000)

    def check_modules(self, modules: Sequence[Linear], rank: int) -> None:
        super().check_modules(modules, rank)
        if self.by == "entries":
            room_for(self.density, modules, rank)
        elif self.density * (count := len(layers([name for name, _, _ in modules]))) < 0.5:
            raise Unfit("density", f"density {self.density:g} of {count} layers is less than half of one")
