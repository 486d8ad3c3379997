"""Forward gradient's settings and presets. Its arithmetic is in `worker/zo/methods/forward_grad.py`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, Line, MethodSettings, Positive, Preset

TANGENT = 2  # forward passes that a probe with its slope costs: each product is made twice

# First match wins. Not measured: MeZO's rates, whose estimate has the same mean and size.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, batch_size=8, settings={"learning_rate": 2.5e-3, "clip": 5.0})),
    Line("*", "*", "answer", Preset(steps=1000, batch_size=8, settings={"learning_rate": 5e-3, "clip": 5.0})),
)


class ForwardGrad(MethodSettings):
    """Forward gradients (arXiv 2202.08587): `queries` directions a step, the loss's exact derivative along each by one
    forward-mode pass. `clip` bounds its size; `a_factor` is what A's part of a direction is multiplied by."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="g = mean j v; j = dL/dv by one JVP",
        forwards="q JVPs, each priced as 2",
        state="-; momentum 1 vector, adam 2",
        use="MeZO without a radius, replayed from scalars",
        source="arXiv 2202.08587",
        needs="a torch worker, an unquantised base",
    )
    autograd: ClassVar[bool] = True
    numbers: ClassVar[int] = 2
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "momentum": (0, 0.99999),
        "beta2": (0, 0.999999),
        "learning_rate": (1e-9, 10),
        "clip": (1e-6, 1e6),
        "a_factor": (0, 10),
    }
    name: Literal["forward_grad"] = "forward_grad"
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    queries: int = Field(default=1, ge=1, le=64)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    clip: Positive | None = None
    a_factor: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False)

    @property
    def probes(self) -> int:
        return TANGENT * self.queries
