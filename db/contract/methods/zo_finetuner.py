"""ZO Fine-tuner's settings and presets. Its arithmetic is in `worker/zo/methods/zo_finetuner.py`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, Line, Preset
from db.contract.methods.probing import ProbingSettings
from db.contract.methods.profiled import MAKES, ProfiledSettings, ProfileKind

# First match wins. Not measured of other bases.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 5e-4})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 1e-3})),
)


class ZoFinetuner(ProfiledSettings, ProbingSettings):
    """ZO Fine-tuner (arXiv 2510.00419): the noise of each tensor is multiplied by a learned sigma, of a small network
    that reads the tensor's mean and variance, the step's before losses and sigma; or, from a profile of kind `factors`,
    by a fixed one. Normalised: the expected square of the direction's norm stays what it is without."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="z sigma_b of tensor b, sigma_b = |MLP(mean, var, L+, L-, sigma_b)|, sum n_b sigma_b^2 = sum n_b",
        forwards="2q",
        state="1 number a tensor, 2 losses",
        use="see the study: behind es there",
        source="arXiv 2510.00419",
        needs=MAKES,
    )
    # All noise in one tensor of thousands makes its sigma about 50: probes stay as small as others' with an eps of 1.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {**ProbingSettings.ranges, "eps": (1e-6, 2.0**-5)}
    reads: ClassVar[tuple[ProfileKind, ...]] = ("mlp", "factors")
    name: Literal["zo_finetuner"] = "zo_finetuner"
    queries: int = Field(default=1, ge=1, le=64)

    @property
    def probes(self) -> int:
        return 2 * self.queries
