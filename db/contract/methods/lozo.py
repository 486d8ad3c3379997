"""LOZO's settings, the rules between them, and presets. Its arithmetic is in `worker/zo/methods/lozo.py`."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import ANY_ROWS, RANK, WIDEST, About, DescentSettings, Line, Preset
from db.contract.refusal import Unfit

WINDOW_RANK = 2


# First match wins, after what the study measured. SmolLM2: bench/results/lozo_refresh.json, on one layer only; three
# rates were tried. Unknown models: not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-3, "learning_rate": 1e-4})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-3, "learning_rate": 2e-4})),
)


class Lozo(DescentSettings):
    """LOZO (arXiv 2410.07698): V is redrawn every `nu` steps and U V^T has rank `window_rank`; `refresh` says what
    becomes of the adapter's rank when V is redrawn. It takes no adam: moments of U lose their meaning with V.

    `scale` "rms" divides by sqrt(window_rank): entries of U V^T then have variance 1. With a window that is never
    redrawn the adapter's rank may be up to 512 (factorised MeZO, arXiv 2605.28760)."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="dW = U V^T; U fresh each step, V each nu",
        forwards="2q; one_sided q + 1; population q",
        state="-; momentum 1 vector",
        use="a search of W that few numbers describe",
        source="arXiv 2410.07698",
    )
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {**DescentSettings.ranges, "nu": (1, 1_000_000)}
    name: Literal["lozo"] = "lozo"
    optimizer: Literal["sgd", "momentum"] = "sgd"
    nu: int = Field(default=50, ge=1)
    window_rank: int = Field(default=WINDOW_RANK, ge=1, le=WIDEST)
    refresh: Literal["bank", "freeze", "recompress"] = "bank"
    scale: Literal["none", "rms"] = "none"

    @property
    def most_rank(self) -> int:
        """Wide where V is never redrawn: B then needs no other rank than V has."""
        return WIDEST if self.refresh == "freeze" else RANK

    def check(self, rank: int) -> None:
        super().check(rank)
        if self.window_rank > rank:
            raise Unfit("window_rank", "window_rank must not exceed rank: the window lives inside the adapter")
        if self.refresh == "recompress" and 2 * self.window_rank > rank:
            reason = "recompress needs a rank of at least 2 * window_rank: the window and as much kept"
            raise Unfit("refresh", reason)

    @classmethod
    def suited(cls, rank: int, rows: int = ANY_ROWS) -> dict[str, Any]:  # noqa: ARG003
        return {"window_rank": min(rank, WINDOW_RANK)}
