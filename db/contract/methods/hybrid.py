"""The hybrid's settings, the rule between them, and presets. Its arithmetic is in `worker/zo/methods/hybrid.py`."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, Line, Positive, Preset
from db.contract.methods.first_order import GRADIENT, AdamWSettings
from db.contract.refusal import Unfit

# First match wins. Not measured.
MIXED = Preset(
    steps=200,
    batch_size=8,
    eval_every=20,
    settings={"eps": 1e-2, "learning_rate": 2e-3, "zo_learning_rate": 2.5e-3, "zo_clip": 5.0, "schedule": "linear"},
)
PRESETS = (Line("*", "*", "all", MIXED), Line("*", "*", "answer", MIXED))


class Hybrid(AdamWSettings):
    """Hybrid of first and zeroth order (arXiv 2402.11592): AdamW on the adapters of the last `top_layers` layers that
    have one, probes of radius `eps` below, `queries` directions a step, which move at `zo_learning_rate`.

    `clip` bounds the norm of the top's gradient, `zo_clip` each projected gradient |c|; `a_factor` is what A's noise is
    multiplied by. The gradient is priced as a whole one, wherever its backward pass stops.
    """

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="AdamW on the top k layers; c z below",
        forwards="2q + 1 + backward, priced as 2q + 3; one_sided q + 3",
        state="2 vectors of the top",
        use="a backward pass whose activations are the top's alone",
        source="arXiv 2402.11592",
        needs="a torch worker, an unquantised base",
    )
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        **AdamWSettings.ranges,
        "eps": (1e-6, 1),
        "zo_learning_rate": (1e-9, 10),
        "zo_clip": (1e-6, 1e6),
        "a_factor": (0, 10),
    }
    name: Literal["hybrid"] = "hybrid"
    top_layers: int = Field(default=4, ge=1, le=1000)
    estimator: Literal["two_point", "one_sided"] = "two_point"
    queries: int = Field(default=1, ge=1, le=64)
    eps: float = Field(gt=0, le=1)
    zo_learning_rate: float = Field(gt=0, le=10)
    zo_clip: Positive | None = None
    a_factor: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False)

    @property
    def probes(self) -> int:
        return GRADIENT + (2 if self.estimator == "two_point" else 1) * self.queries

    def check(self, rank: int) -> None:
        super().check(rank)
        if self.weight_decay * self.zo_learning_rate > 1:
            raise Unfit("zo_learning_rate", "zo_learning_rate x weight_decay may be at most 1")

    def fits(self, modules: Sequence[str]) -> None:
        self.top(modules)

    def top(self, modules: Sequence[str]) -> int:
        """The number of the first of these modules, in model order, that is in the top layers. Raises Unfit where none
        is below."""
        names = [_layer(module) for module in modules]
        layers = list(dict.fromkeys(names))
        if self.top_layers >= len(layers):
            reason = f"{len(layers)} layers have an adapter and one stays below: at most {len(layers) - 1}"
            raise Unfit("top_layers", f"top_layers is {self.top_layers}: {reason}")
        return names.index(layers[-self.top_layers])


def _layer(module: str) -> str:
    """The layer that a module is in: its name up to the first whole number; all of it where it has none."""
    parts = module.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdecimal()), len(parts) - 1)
    return ".".join(parts[: number + 1])
