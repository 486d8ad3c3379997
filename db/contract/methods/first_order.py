"""First-order LoRA's settings and presets. Its arithmetic is in `worker/zo/methods/first_order.py`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, Line, MethodSettings, Positive, Preset

GRADIENT = 3  # forward passes that a probe with its gradient costs: the backward pass does twice a forward's products

ADAMW = Preset(
    steps=100, batch_size=8, eval_every=10, settings={"learning_rate": 2e-3, "schedule": "linear"}, epochs=24
)

# First match wins, after what the study measured. Not measured.
PRESETS = (
    Line("*", "*", "all", ADAMW),
    Line("*", "*", "answer", ADAMW),
)


class AdamWSettings(MethodSettings):
    """Settings of a method that moves along an exact gradient by AdamW (arXiv 1711.05101, algorithm 2).

    `momentum` is beta 1, `beta2` beta 2, `weight_decay` is decoupled, and `clip` bounds the gradient's norm over all
    that it moves. No journal has a gradient: points of the run are kept whole.
    """

    replay: ClassVar[Literal["journal", "snapshots"]] = "snapshots"
    autograd: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "momentum": (0, 0.99999),
        "beta2": (0, 0.999999),
        "learning_rate": (1e-9, 10),
        "clip": (1e-6, 1e6),
    }
    momentum: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    clip: Positive | None = None


class FirstOrder(AdamWSettings):
    """LoRA as it is usually trained: backpropagation and AdamW on every entry of A and B. A step is priced as three
    forward passes of its rows: one is made, and the backward pass does the products of two."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="AdamW on the gradient of A and B",
        forwards="1 + backward, priced as 3",
        state="2 vectors",
        use="the reference: soonest wherever a gradient can be had",
        source="arXiv 1711.05101, 2106.09685",
        needs="a torch worker, an unquantised base",
    )
    name: Literal["first_order"] = "first_order"

    @property
    def probes(self) -> int:
        return GRADIENT
