"""TeZO's settings and presets. Its arithmetic is in `worker/zo/methods/tezo.py`."""

from typing import ClassVar, Literal

from db.contract.methods.base import About, DescentSettings, Line, Preset

# First match wins. Not measured.
PRESETS = (
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-3, "learning_rate": 1e-4})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-3, "learning_rate": 2e-4})),
)


class Tezo(DescentSettings):
    """TeZO (arXiv 2501.19057): as many rank-one matrices u v^T a module as the adapter has rank, fixed, their weights
    tau fresh each step. Momentum and adam keep r numbers a module."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="dW = sum tau_s u_s v_s^T; u, v fixed, tau fresh each step",
        forwards="2q; one_sided q + 1; population q",
        state="-; momentum r numbers a module, adam 2 r",
        use="moments for next to nothing; a search of r numbers a module",
        source="arXiv 2501.19057",
    )
    name: Literal["tezo"] = "tezo"
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
