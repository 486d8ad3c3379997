"""MeZO-SVRG's settings and presets. Its arithmetic is in `worker/zo/methods/svrg.py`."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from db.contract.methods.base import ANY_ROWS, About, Beside, Line, Preset
from db.contract.methods.probing import ProbingSettings
from db.contract.refusal import Unfit

ROWS: Final = 64  # of the anchor, where nothing is said

# First match wins; what is measured goes before them (db/contract/evidence.py).
PRESETS = (
    Line("*", "*", "all", Preset(steps=500, settings={"eps": 1e-2, "learning_rate": 5e-4})),
    Line("*", "*", "answer", Preset(steps=500, settings={"eps": 1e-2, "learning_rate": 1e-3})),
)


class Svrg(ProbingSettings):
    """MeZO-SVRG (arXiv 2404.08080): each `anchor_every` steps theta is remembered as the anchor, and a step is taken
    against its estimate by `anchor_queries` pairs on `anchor_rows` rows, at `anchor_factor` times the rate. Every other
    step scores its minibatch at theta and at the anchor, `queries` pairs each: where the two differ, and the anchor's
    estimate, are its own."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="g(batch, theta) - g(batch, anchor) + g(anchor rows, anchor), same z",
        forwards="4q; at a refresh 2q' on the anchor rows",
        state="the anchor 1 vector, q' numbers",
        use="minibatches that differ much; far behind in the study",
        source="arXiv 2404.08080",
    )
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        **ProbingSettings.ranges,
        "anchor_factor": (1e-3, 1e4),
    }
    name: Literal["svrg"] = "svrg"
    queries: int = Field(default=1, ge=1, le=64)
    anchor_every: int = Field(default=10, ge=2, le=1_000_000)
    anchor_rows: int = Field(default=ROWS, ge=1, le=1_000_000)
    anchor_queries: int = Field(default=2, ge=1, le=64)
    anchor_factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @property
    def probes(self) -> int:
        """Of a step on its minibatch: what a refresh scores is `beside` it."""
        return 4 * self.queries

    @property
    def beside(self) -> Beside:
        return Beside("anchor_rows", self.anchor_rows, 2 * self.anchor_queries, self.anchor_every)

    def check(self, rank: int) -> None:
        super().check(rank)
        rate = self.learning_rate * self.anchor_factor
        if rate > 10 or rate * self.weight_decay > 1:
            raise Unfit("anchor_factor", f"learning_rate x anchor_factor is {rate:g}: at most 10, and 1 / weight_decay")

    @classmethod
    def suited(cls, rank: int, rows: int = ANY_ROWS) -> dict[str, Any]:
        return {**super().suited(rank, rows), "anchor_rows": min(ROWS, rows)}
