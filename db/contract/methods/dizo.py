"""DiZO's settings and presets. Its arithmetic is in `worker/zo/methods/dizo.py`."""

from typing import ClassVar, Literal

from pydantic import Field

from db.contract.methods.base import About, AdapterSettings, Line, Preset

# Not measured. Of the projection, the values are the official code's.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 5e-4})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 1e-3})),
)


class Dizo(AdapterSettings):
    """DiZO (arXiv 2502.03304): every `project_every` steps, how far each module has come from its start is multiplied
    by a ratio within 1 - `tau` and 1 + `tau`, which `project_pairs` pairs of probes of radius `project_eps` find at the
    rate `project_rate`."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="each T steps theta0 + r (theta - theta0), r by ZO",
        forwards="2q, and 2k more each T steps",
        state="theta0 1 vector; momentum 1, adam 2",
        use="see the study: behind es there",
        source="arXiv 2502.03304",
    )
    name: Literal["dizo"] = "dizo"
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    project_every: int = Field(default=50, ge=1, le=1_000_000)
    project_pairs: int = Field(default=10, ge=1, le=64)
    project_eps: float = Field(default=0.2, ge=1e-3, le=1)
    project_rate: float = Field(default=10.0, ge=1e-6, le=1e6)
    tau: float = Field(default=0.2, ge=1e-3, le=1)

    @property
    def probes(self) -> int:
        """Of a step that projects."""
        return super().probes + 2 * self.project_pairs
