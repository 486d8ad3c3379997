"""What cells come to: means over seeds with their spread, the best line of a family, the cost of a loss. No text."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.study.lines import DROPS, TASKS, objective_of
from bench.study.store import Measured, Point, Study

# Processor seconds at which the lines of a family are compared on the development rows, by objective and activation.
CHOICE: Final[Mapping[tuple[str, str], float]] = {
    ("choice", "answer"): 20.0,
    ("choice", "all"): 60.0,
    ("lm", "answer"): 60.0,
    ("lm", "all"): 60.0,
}
# What seeds of one line differ by in that loss, as a standard deviation, nats (measured: 0.07 to 0.16). A line is
# chosen by its mean over seeds and two standard errors: one lucky seed outdoes no line of three within the noise.
NOISE: Final = 0.08
Set = Literal["dev", "report"]


@dataclass(frozen=True)
class Mean:
    """Of `n` values; `spread` is their standard deviation, None of one."""

    value: float
    spread: float | None
    n: int


@dataclass(frozen=True)
class Reached:
    """Processor seconds to a loss, in the mean over the `n` seeds of `of` that got there."""

    seconds: Mean | None
    n: int
    of: int


Key = tuple[str, str]  # line, activation


def grouped(study: Study) -> dict[Key, dict[str, list[Measured]]]:
    """Cells by (line, activation), then task, seeds in order."""
    found: dict[Key, dict[str, list[Measured]]] = {}
    for cell in sorted(study.cells.values(), key=lambda c: c.seed):
        found.setdefault((cell.line, cell.activation), {}).setdefault(cell.task, []).append(cell)
    return found


def mean(values: Iterable[float]) -> Mean:
    """Raises StatisticsError for no values."""
    known = list(values)
    return Mean(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def loss_at(points: Sequence[Point], cost: float, of: Set) -> float:
    """Held-out loss after so many processor seconds, by a straight line between two evaluations; that of the end where
    the run ended before."""
    before = points[0]
    for point in points:
        if point.cost >= cost:
            share = (cost - before.cost) / (point.cost - before.cost) if point.cost > before.cost else 0.0
            return _loss(before, of) + share * (_loss(point, of) - _loss(before, of))
        before = point
    return _loss(before, of)


def reached(points: Sequence[Point], target: float) -> float | None:
    """Processor seconds until the loss on the reported rows first is `target`, by a straight line between two
    evaluations; None where never."""
    before: Point | None = None
    for point in points:
        if point.report[0] <= target:
            if before is None:
                return point.cost
            share = (before.report[0] - target) / (before.report[0] - point.report[0])
            return before.cost + (point.cost - before.cost) * share
        before = point
    return None


def to_target(cells: Sequence[Measured], target: float) -> Reached:
    """Of one line on one task."""
    return _reached([reached(c.points, target) for c in cells])


def to_drop(cells: Sequence[Measured], drop: float) -> Reached:
    """The same to a loss that lies so far below the cell's first."""
    return _reached([reached(c.points, c.points[0].report[0] - drop) for c in cells])


def _reached(seconds: Sequence[float | None]) -> Reached:
    known = [s for s in seconds if s is not None]
    return Reached(mean(known) if known else None, len(known), len(seconds))


def choice(by_task: Mapping[str, Sequence[Measured]]) -> float | None:
    """What a line is chosen by, the least first: its development loss after CHOICE seconds in the mean over seeds and
    tasks, and twice NOISE over the root of the number of seeds that it has on every task. None where a task is not
    measured, or a loss is not finite."""
    objective = objective_of(next(iter(by_task)))
    each = [by_task.get(task, ()) for task in TASKS[objective]]
    if not all(each):
        return None
    cost = CHOICE[objective, each[0][0].activation]
    loss = statistics.fmean(statistics.fmean(loss_at(c.points, cost, "dev") for c in own) for own in each)
    return loss + 2 * NOISE / math.sqrt(min(map(len, each))) if math.isfinite(loss) else None


def chosen(study: Study, by: Literal["family", "method"]) -> dict[tuple[str, str, str], Key]:
    """The best line of each (family or method, objective, activation), as far as measured."""
    best: dict[tuple[str, str, str], tuple[float, Key]] = {}
    for key, by_task in grouped(study).items():
        worth = choice(by_task)
        cell = next(iter(by_task.values()))[0]
        of = (cell.family if by == "family" else cell.method), objective_of(cell.task), cell.activation
        if worth is not None and (of not in best or worth < best[of][0]):
            best[of] = worth, key
    return {of: key for of, (_, key) in best.items()}


def all_seconds(by_task: Mapping[str, Sequence[Measured]], name: str) -> float | None:
    """Processor seconds to the drop of this name, mean over tasks and seeds; None where one did not get there."""
    each = [to_drop(cells, DROPS[name][task]) for task, cells in by_task.items()]
    if any(r.seconds is None or r.n < r.of for r in each):
        return None
    return statistics.fmean(r.seconds.value for r in each if r.seconds is not None)


def _loss(point: Point, of: Set) -> float:
    return point.dev[0] if of == "dev" else point.report[0]
