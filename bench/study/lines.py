"""What is compared, as data: a line is a method with its settings, a cell a line on a task under a seed. No engine.
The lines themselves are `bench.study.grid`'s.

Lines of one family are one method's grid: the best of them on the development rows is what the tables report of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from db.contract.methods.base import Activation
from db.contract.tokens.invocation import MOST

Task = Literal["sentiment", "topic", "chat", "written", "reviews"]
Objective = Literal["choice", "lm"]
Template = Literal["demo", "plain"]
TASKS: Final[Mapping[Objective, tuple[Task, ...]]] = {"choice": ("sentiment", "topic"), "lm": ("chat",)}
SEEDS: Final = (0, 1, 2)
# Processor seconds of steps and prompts after which a cell is cut at its next evaluation, where its line has no other.
BUDGET: Final = 40.0
# What the first preset (one pair, 200 steps) came to on the demo's own held-out rows after two fifths of its cost and
# at its end (bench/results/bench.json, three seeds): held-out losses, nats a row, and how far those lie below the bare
# base's. Rows differ in how hard they are, so a drop carries over to others better than a loss does.
TARGETS: Final[Mapping[str, Mapping[str, float]]] = {
    "early": {"sentiment": 0.59, "topic": 0.74},
    "late": {"sentiment": 0.556, "topic": 0.674},
}
BARE: Final = {"sentiment": 0.899, "topic": 0.971}
# Of chat, nats a token: what a probing method may come to, and what says that answers are known.
CHAT: Final = {"early": 1.0, "late": 3.0}
DROPS: Final[Mapping[str, Mapping[str, float]]] = {
    name: {**{task: round(BARE[task] - loss, 3) for task, loss in own.items()}, "chat": CHAT[name]}
    for name, own in TARGETS.items()
}


@dataclass(frozen=True)
class Line:
    """`fields` are what `presets.resolve` takes, beside the method: all that decides the line, for presets follow from
    what is measured here; `layers` are all where nothing is said. `points` are the steps that are evaluated after;
    `template` is how rows are told (`bench.study.rows`), `acting` of how many tokens the invocation is at most, `dtype`
    the engine's."""

    name: str
    family: str
    method: str
    fields: Mapping[str, Any] = field(hash=False)
    points: tuple[int, ...]
    activation: Activation = "answer"
    budget: float = BUDGET
    objective: Objective = "choice"
    profile: Mapping[str, Any] = field(default_factory=dict, hash=False)
    template: Template = "demo"
    acting: int = MOST
    dtype: str = "float32"

    @property
    def steps(self) -> int:
        return self.points[-1]

    @property
    def asked(self) -> dict[str, Any]:
        """All that is asked for, steps included."""
        return {"layers": "all", **self.fields, "method": self.method, "steps": self.steps}


@dataclass(frozen=True)
class Cell:
    """One run."""

    line: Line
    task: Task
    seed: int

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.line.name} / {self.line.activation} / {self.task} / seed {self.seed}"


def objective_of(task: str) -> Objective:
    """What rows of this task are trained for."""
    return "choice" if task in TASKS["choice"] else "lm"
