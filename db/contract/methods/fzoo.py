"""FZOO's settings and presets. Its arithmetic is in `worker/zo/methods/fzoo.py`."""

from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, AdapterSettings, Line, Preset
from db.contract.refusal import Unfit

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=500, settings={"eps": 1e-2, "learning_rate": 5e-3, "schedule": "linear"})),
    Line("*", "*", "answer", Preset(steps=500, settings={"eps": 1e-2, "learning_rate": 1e-2, "schedule": "linear"})),
)


class Fzoo(AdapterSettings):
    """FZOO (arXiv 2506.09034) on every entry of A and B. `deviation` is that of a sample (N - 1, as in the paper) or of
    a population (N, as in its code); `clip` bounds a weight."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="g = mean (L - L0) / std L * u, u of signs",
        forwards="q + 1",
        state="-; momentum 1 vector, adam 2",
        use="losses of unknown scale",
        source="arXiv 2506.09034",
    )
    name: Literal["fzoo"] = "fzoo"
    estimator: Literal["one_sided"] = "one_sided"
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    queries: int = Field(default=8, ge=1, le=64)
    deviation: Literal["sample", "population"] = "sample"

    def check(self, rank: int) -> None:
        super().check(rank)
        if self.queries < 2:
            raise Unfit("queries", "FZOO needs at least 2 queries: one loss has no deviation")
