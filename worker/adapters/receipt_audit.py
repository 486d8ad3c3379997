"""Steps of a receipt scored again: whether its losses are those of its rows. Knows rows and a scorer, no database."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from db.contract.history import History
from db.contract.receipts.form import Receipt
from db.contract.receipts.refused import Refused
from db.contract.tokens.base_model import Base
from worker.runs import recipes
from worker.runs.data import Dataset, dataset
from worker.runs.rebuilding import first, rebuild
from worker.runs.replay import Point, replay
from worker.scoring.scorer import Scorer
from worker.types import Trial
from worker.zo.method import Measured, measured, numbers_of


@dataclass(frozen=True)
class Rescored:
    """Step number `step`: the largest difference, nats, between a loss that is told and the same one scored now.
    Infinite where only one of them is a number."""

    step: int
    difference: float


def chance(steps: int, sample: int, share: float = 0.05) -> float:
    """That a sample of as many different steps has a forged one among it, where a `share` of all steps is forged: the
    hypergeometric distribution's, exact."""
    forged, sample = math.ceil(share * steps), min(sample, steps)
    return 1.0 - math.comb(steps - forged, sample) / math.comb(steps, sample)


def rows(receipt: Receipt, base: Base, training: bytes, validation: bytes | None = None) -> Dataset:
    """The rows that the adapter's own job was trained on. Raises Refused `foreign_rows` for others."""
    told = receipt.told[0]
    if hashlib.sha256(training).hexdigest() != told.training:
        raise Refused("foreign_rows", "the training rows are not those of the receipt")
    if validation is not None and hashlib.sha256(validation).hexdigest() != told.validation:
        raise Refused("foreign_rows", "the validation rows are not those of the receipt")
    return dataset(base, told.history.spec, training)


def rescored(receipt: Receipt, base: Base, data: Dataset, scorer: Scorer, steps: Sequence[int]) -> Iterator[Rescored]:
    """The named steps of the adapter's own job, in order, each scored as it was asked for."""
    history = receipt.history
    for step, point in _points(history, base, sorted(set(steps))):
        yield Rescored(step, _difference(history, base, data, scorer, step, point))


def _points(history: History, base: Base, steps: Sequence[int]) -> Iterator[tuple[int, Point]]:
    """The points before the steps. A run that never went back is walked along once."""
    method = recipes.method(history.spec, recipes.layout(history.spec, base), profile=history.profile)
    point = None if history.restarts else first(history, base)
    for step in steps:
        point = rebuild(history.upto(step), base) if point is None else replay(method, history.losses[:step], point)
        yield step, point
        if history.restarts:
            point = None


def _difference(history: History, base: Base, data: Dataset, scorer: Scorer, step: int, point: Point) -> float:
    spec = history.spec
    layout = recipes.layout(spec, base)
    method = recipes.method(spec, layout, profile=history.profile)
    batch = data.minibatch(spec.seed, step, spec.batch_size, spec.repeat)
    told, found = history.losses[step], list[float]()
    while probes := method.ask(point.params, point.state, measured(told[: len(found)], method.numbers)):
        rows = [data.asked(spec.seed, p.rows, batch) for p in probes]
        asked = zip(probes, rows, strict=True)
        trials = [Trial(layout, p.params, seen, spec.objective, tangent=p.tangent) for p, seen in asked]
        found += numbers_of([Measured(x.mean, x.slope) for x in scorer.score(trials)])
    if len(found) != len(told):
        raise Refused("history", f"step {step} asks for {len(found)} losses, {len(told)} are told")
    return max(map(_apart, told, found))


def _apart(told: float, found: float) -> float:
    if math.isfinite(told) and math.isfinite(found):
        return abs(told - found)
    return 0.0 if math.isfinite(told) == math.isfinite(found) else math.inf
