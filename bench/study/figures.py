"""What cells come to: means over seeds with their spread, the best line of a family, the cost of a loss. No text."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.study.lines import DROPS, SEEDS, TASKS
from bench.study.store import Measured, Point, Study

CHOICE: Final = 20.0  # processor seconds at which the lines of a family are compared on the development rows
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
    """What a line is chosen by: its development loss after CHOICE seconds under the first seed, in the mean over tasks.
    None where a task is not measured, or a loss is not finite."""
    firsts = [[c for c in by_task.get(task, ()) if c.seed == SEEDS[0]] for task in TASKS]
    if not all(firsts):
        return None
    loss = statistics.fmean(loss_at(first[0].points, CHOICE, "dev") for first in firsts)
    return loss if math.isfinite(loss) else None


def chosen(study: Study, by: Literal["family", "method"]) -> dict[tuple[str, str], Key]:
    """The best line of each (family or method, activation), as far as measured."""
    best: dict[tuple[str, str], tuple[float, Key]] = {}
    for key, by_task in grouped(study).items():
        worth = choice(by_task)
        cell = next(iter(by_task.values()))[0]
        of = (cell.family if by == "family" else cell.method), cell.activation
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
