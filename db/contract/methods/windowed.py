"""What the settings of methods with a window of an adapter's rank have in common. Knows no method's name."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import ANY_ROWS, RANK, MethodSettings
from db.contract.refusal import Unfit


class WindowedSettings(MethodSettings):
    """A window is `window_rank` of the adapter's rank, all of it where nothing is said; every `nu` steps another is
    drawn, and `refresh` says where it goes: to the next rows (`bank`) or to the first ones, whose fixed half stays
    (`freeze`)."""

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"nu": (1, 1_000_000)}
    nu: int = Field(default=100, ge=1)
    window_rank: int = Field(ge=1, le=RANK)
    refresh: Literal["bank", "freeze"] = "bank"

    def check(self, rank: int) -> None:
        super().check(rank)
        if self.window_rank > rank:
            raise Unfit("window_rank", "window_rank must not exceed rank: the window lives inside the adapter")

    @classmethod
    def suited(cls, rank: int, rows: int = ANY_ROWS) -> dict[str, Any]:  # noqa: ARG003
        return {"window_rank": min(rank, RANK)}
