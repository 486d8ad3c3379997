"""Random search's settings and presets. Its arithmetic is in `worker/zo/methods/random_search.py`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import HALVES, About, Line, MethodSettings, Preset
from db.contract.refusal import Unfit

# First match wins. Not measured. Fewer steps of more rows: what wins on few rows has won by chance.
PRESETS = (
    Line("*", "*", "all", Preset(steps=50, batch_size=64, settings={"learning_rate": 1e-2})),
    Line("*", "*", "answer", Preset(steps=50, batch_size=64, settings={"learning_rate": 1e-2})),
)


class RandomSearch(MethodSettings):
    """The best of `candidates` perturbations a step and the best before, all of the adapter that the job began with.
    `learning_rate` is how far they are from it: what their noise is multiplied by, and A's by `a_factor` too:
    0 leaves A as it began."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="the best of n perturbations of the start and the incumbent",
        forwards="n + 1",
        state="2 integers",
        use="what every method must beat at equal tokens",
        source="arXiv 2603.12228",
    )
    # A radius, as eps is one elsewhere.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"learning_rate": (1e-6, 1), "a_factor": HALVES["a_factor"]}
    name: Literal["random_search"] = "random_search"
    a_factor: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False)
    candidates: int = Field(default=8, ge=1, le=256)

    @property
    def probes(self) -> int:
        return self.candidates + 1

    def check(self, rank: int) -> None:
        del rank
        if self.weight_decay:
            raise Unfit("weight_decay", "random search keeps what it finds: its weight_decay can only be 0")
