"""Block-wise MeZO's settings and presets. Its arithmetic is in `worker/zo/methods/blockwise.py`."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, AdapterSettings, Line, Preset
from db.contract.refusal import Unfit
from db.contract.tokens.architectures import Linear

MOST = 256  # directions a step
# Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 5e-4})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 1e-3})),
)


class Blockwise(AdapterSettings):
    """MeZO on one of `blocks` blocks of the adapted modules a step, in turn (ZO-Bench, arXiv 2402.11592); `together`
    probes each by itself, with its own `queries`, and then moves all. It takes no momentum, which would move a block at
    another's step."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="z of block t mod N, 0 elsewhere",
        forwards="2q; one_sided q + 1; population q; together N times the q",
        state="-",
        use="see the study: behind es there",
        source="arXiv 2402.11592",
    )
    name: Literal["blockwise"] = "blockwise"
    optimizer: Literal["sgd"] = "sgd"
    blocks: int = Field(default=4, ge=1, le=100_000)
    together: bool = False

    @property
    def probes(self) -> int:
        each = self.queries * self.blocks
        match self.estimator if self.together else "":
            case "two_point":
                return 2 * each
            case "one_sided":
                return each + 1
        return super().probes

    def check(self, rank: int) -> None:
        super().check(rank)
        if not self.together:
            return
        if self.estimator == "population":
            raise Unfit("estimator", "a block has no population: together takes two_point and one_sided")
        if self.queries * self.blocks > MOST:
            said = f"blocks is {self.blocks} and queries {self.queries}: together they may be {MOST} directions"
            raise Unfit("blocks", said)

    def check_modules(self, modules: Sequence[Linear], rank: int) -> None:
        super().check_modules(modules, rank)
        if self.blocks > len(modules):
            raise Unfit("blocks", f"blocks is {self.blocks}: at most {len(modules)}, the modules of the adapter")
