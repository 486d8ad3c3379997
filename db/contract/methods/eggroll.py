"""EGGROLL's settings, the rule between them, and presets. Its arithmetic is in `worker/zo/methods/eggroll.py`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, DescentSettings, Line, Preset
from db.contract.refusal import Unfit

MOST_OWN = 64  # rank of one step's move, where members share no V: what cutting it back takes grows as its cube

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=300, settings={"eps": 1e-3, "learning_rate": 1e-4, "schedule": "linear"})),
    Line("*", "*", "answer", Preset(steps=300, settings={"eps": 1e-3, "learning_rate": 2e-4, "schedule": "linear"})),
)


class Eggroll(DescentSettings):
    """EGGROLL (arXiv 2511.16652): `queries` members of rank `window_rank` a step; `clip` bounds a score.

    `members` "shared": U_i V^T, V redrawn every `nu` steps as LOZO's is, and `refresh` says where the new V goes. As
    LOZO, it takes no adam. "own": U_i V_i^T, and what has been learned is cut back to `rank` - `window_rank` at every
    step; nothing can be averaged over steps, and `nu` says nothing."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="dW = sqrt(q) mean z-score(L) U_i V^T; own members U_i V_i^T, cut back",
        forwards="q",
        state="-; momentum 1 vector",
        use="an evolution strategy on W",
        source="arXiv 2511.16652, V shared or own",
    )
    # eps / sqrt(window_rank) is what a probe moves by.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        **DescentSettings.ranges,
        "eps": (1e-5, 1),
        "nu": (1, 1_000_000),
    }
    name: Literal["eggroll"] = "eggroll"
    estimator: Literal["population"] = "population"
    optimizer: Literal["sgd", "momentum"] = "sgd"
    queries: int = Field(default=30, ge=1, le=64)
    nu: int = Field(default=50, ge=1)
    window_rank: int = Field(default=1, ge=1, le=64)
    refresh: Literal["bank", "freeze"] = "bank"
    members: Literal["shared", "own"] = "shared"

    def check(self, rank: int) -> None:
        super().check(rank)
        if self.window_rank > rank:
            raise Unfit("window_rank", "window_rank must not exceed rank: the window lives inside the adapter")
        if self.members == "own":
            self._check_own(rank)

    def _check_own(self, rank: int) -> None:
        """What members of their own rule out."""
        if self.window_rank >= rank:
            reason = (
                f"members of their own need a rank above window_rank, {self.window_rank}: they wear that many of it"
            )
            raise Unfit("rank", reason)
        if self.queries * self.window_rank > MOST_OWN:
            total = f"{self.queries} times {self.window_rank}"
            reason = (
                f"members of their own may have a rank of {MOST_OWN} together: queries times window_rank is {total}"
            )
            raise Unfit("queries", reason)
        if self.optimizer != "sgd":
            raise Unfit("optimizer", "members of their own take sgd alone: a mean of moves fits no adapter's rank")
        if self.refresh != "bank":
            raise Unfit("refresh", "members of their own share no V that could stay")
