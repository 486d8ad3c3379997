"""What is compared, as data: a line is a method with its settings, a cell a line on a task under a seed. No engine.

Lines of one family are one method's grid: the best of them on the development rows is what the tables report of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final, Literal

from db.contract.methods.base import Activation

Task = Literal["sentiment", "topic"]
TASKS: Final[tuple[Task, ...]] = ("sentiment", "topic")
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
DROPS: Final[Mapping[str, Mapping[str, float]]] = {
    name: {task: round(BARE[task] - loss, 3) for task, loss in own.items()} for name, own in TARGETS.items()
}
SMOLLM2: Final = {"targets": ("v_proj", "o_proj"), "eps": 1e-2}


@dataclass(frozen=True)
class Line:
    """`fields` are what `presets.resolve` takes, beside the method: all that decides the line, for presets follow from
    what is measured here. `points` are the steps that are evaluated after."""

    name: str
    family: str
    method: str
    fields: Mapping[str, Any] = field(hash=False)
    points: tuple[int, ...]
    activation: Activation = "answer"
    budget: float = BUDGET

    @property
    def steps(self) -> int:
        return self.points[-1]

    @property
    def asked(self) -> dict[str, Any]:
        """All that is asked for, steps included."""
        return {**self.fields, "method": self.method, "steps": self.steps}


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


def _pair(name: str, rate: float, *points: int, **fields: Any) -> Line:
    """MeZO's one two-sided pair on 8 rows that serve 4 steps."""
    own = {"estimator": "two_point", "queries": 1, "a_factor": 1.0, "learning_rate": rate, "schedule": "linear"}
    own |= {"clip": 5.0, "batch_size": 8, "repeat": 4}
    return Line(name, "mezo, pair", "mezo", {**SMOLLM2, **own, **fields}, points)


def _population(name: str, rate: float, *points: int, **fields: Any) -> Line:
    """MeZO with 16 one-sided probes, their mean as baseline, on 2 rows, A left alone."""
    own = {"estimator": "population", "queries": 16, "a_factor": 0.0, "learning_rate": rate, "schedule": "linear"}
    shape = {"clip": 5.0, "batch_size": 2, "repeat": 1}
    return Line(name, "mezo, population, B alone", "mezo", {**SMOLLM2, **own, **shape, **fields}, points)


def _strategy(name: str, rate: float, *points: int, **fields: Any) -> Line:
    """The same population, its losses weighed against their own deviation: one rate whatever the loss's scale."""
    own = {"queries": 16, "a_factor": 0.0, "learning_rate": rate, "schedule": "linear", "batch_size": 2, "repeat": 1}
    return Line(name, "evolution strategy, B alone", "es", {**SMOLLM2, **own, **fields}, points)


def _first_order(name: str, rate: float, *points: int, **fields: Any) -> Line:
    """AdamW on the same adapter, 8 rows a step."""
    own = {"learning_rate": rate, "schedule": "linear", "batch_size": 8, "targets": SMOLLM2["targets"]}
    return Line(name, "first order", "first_order", {**own, **fields}, points)


THIRTY, SIXTY = (10, 20, 30), (10, 20, 30, 45, 60)
LINES: Final[tuple[Line, ...]] = (
    _pair("pair 5e-3 of 200", 5e-3, 50, 100, 150, 200),
    _pair("pair 1e-2 of 60", 1e-2, *(20, 40, 60)),
    _population("population 0.3 of 30", 0.3, *THIRTY),
    _population("population 0.1 of 30", 0.1, *THIRTY),
    _population("population 0.3 of 60", 0.3, *SIXTY),
    _strategy("strategy 0.3 of 30", 0.3, *THIRTY),
    _strategy("strategy 0.6 of 30", 0.6, *THIRTY),
    _strategy("strategy 0.3 of 30, 4 rows", 0.3, *THIRTY, batch_size=4),
    _strategy("strategy 0.3 of 40, 4 rows, repeat 4", 0.3, 10, 20, 30, 40, batch_size=4, repeat=4),
    _strategy("strategy 0.15 of 40, 4 rows", 0.15, 10, 20, 30, 40, batch_size=4),
    _strategy("strategy 0.3 of 40, repeat 4", 0.3, 10, 20, 30, 40, repeat=4),
    _strategy(
        "strategy 0.3 of 40, 8 rows, 8 queries, repeat 8", 0.3, 10, 20, 30, 40, batch_size=8, queries=8, repeat=8
    ),
    _strategy("strategy 0.6 of 40, 4 rows, repeat 4", 0.6, 10, 20, 30, 40, batch_size=4, repeat=4),
    _strategy("strategy 0.15 of 40, 4 rows, repeat 4", 0.15, 10, 20, 30, 40, batch_size=4, repeat=4),
    _strategy("strategy 0.3 of 30, 4 rows, A 0.1", 0.3, *THIRTY, batch_size=4, a_factor=0.1),
    _strategy("strategy 0.3 of 30, 4 rows, cosine", 0.3, *THIRTY, batch_size=4, schedule="cosine"),
    _strategy("strategy 0.3 of 15, 4 rows", 0.3, 5, 10, 15, batch_size=4),
    _first_order("first order 2e-3 of 24", 2e-3, 4, 8, 12, 24),
    _first_order("first order 2e-3 of 24, repeat 4", 2e-3, 4, 8, 16, 24, repeat=4),
)
# What `--quick` runs, on one seed: the pair re-tuned and the population, beside first-order.
QUICK: Final = ("pair 1e-2 of 60", "population 0.3 of 30", "first order 2e-3 of 24, repeat 4")


def cells(names: Sequence[str], tasks: Sequence[Task] = TASKS, seeds: Sequence[int] = SEEDS) -> Iterator[Cell]:
    """Of the lines of these names (all without any), in the order in which they are run: the first seed of every line
    first. Raises KeyError for a name that is no line's."""
    known = {line.name: line for line in LINES}
    chosen = [known[name] for name in names] if names else list(LINES)
    for seed, line, task in product(seeds, chosen, tasks):
        yield Cell(line, task, seed)
