"""Sparse-MeZO's settings and presets. Its arithmetic is in `worker/zo/methods/sparse_mezo.py`."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, AdapterSettings, Line, Preset, room_for
from db.contract.tokens.architectures import Linear

# Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 5e-4})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 1e-3})),
)


class SparseMezo(AdapterSettings):
    """Sparse-MeZO (arXiv 2402.15751): of each tensor a share `density` is probed and moved, the entries smallest in
    size, chosen anew every `mask_every` steps. It takes no momentum, which would move what the mask leaves out."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="z of each tensor's smallest entries, 0 elsewhere",
        forwards="2q; one_sided q + 1; population q",
        state="1 bit an entry",
        use="see the study: behind es there",
        source="arXiv 2402.15751",
    )
    name: Literal["sparse_mezo"] = "sparse_mezo"
    optimizer: Literal["sgd"] = "sgd"
    density: float = Field(default=0.25, gt=0, le=1)
    mask_every: int = Field(default=50, ge=1, le=1_000_000)

    def check_modules(self, modules: Sequence[Linear], rank: int) -> None:
        super().check_modules(modules, rank)
        room_for(self.density, modules, rank)
