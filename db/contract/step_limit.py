"""The most scored tokens that one step or one evaluation of a job can take, and what would take fewer.

A step is not interrupted by fairness, only between its waves: what it may take at most is asked before a job is queued.
Whatever the seed, so that a request is answered alike each time. Knows token counts and the spec, no request.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from db.contract.methods.base import Beside
from db.contract.pricing import Counts
from db.contract.spec import JobSpec


@dataclass(frozen=True)
class Excess:
    """`what` may take `tokens`, more than the limit; `field` (batch_size, eval_rows, or the method's own for what some
    steps score beside) sets how many rows it has, of which `fits` would not be too many, 0 where one row is. `longest`
    is the number of the row that costs most, from 0."""

    what: Literal["step", "evaluation"]
    field: str
    tokens: int
    fits: int
    longest: int

    def said(self, spec: JobSpec, limit: int) -> str:
        """The numbers, and what would fit."""
        rows = f"{spec.method.probes} probes of {spec.batch_size}" if self.what == "step" else f"{spec.eval_rows}"
        if (other := spec.method.beside) is not None and self.field == other.field:
            rows = f"{other.probes} probes of {other.rows}"
        message = f"One {self.what} may take {self.tokens} scored tokens ({rows} rows): at most {limit} here."
        if self.fits:
            return f"{message} {self.field} {self.fits} would fit."
        return f"{message} Not one row would fit: line {self.longest + 1} takes most."


def excesses(spec: JobSpec, train: Counts, valid: Counts, limit: int) -> Iterator[Excess]:
    """What of the job is above `limit` scored tokens. `train` and `valid` are of its files, whole: rows held out of the
    training file may be any of it."""
    costs = _costs(train, spec.method.probes)
    rows = _trained(spec, costs)
    if (tokens := _own(spec, train)) > limit:
        fits = _largest(spec.batch_size, lambda batch: _window(rows, batch) <= limit)
        yield Excess("step", "batch_size", tokens, fits, int(costs.argmax()))
    if (other := spec.method.beside) is not None and (tokens := _beside(spec, train, other)) > limit:
        fits = _largest(other.rows, lambda n: _beside(spec, train, replace(other, rows=n)) <= limit)
        yield Excess("step", other.field, tokens, fits, int(_costs(train, other.probes).argmax()))
    costs = _costs(train if spec.held_out else valid, 1)
    order = np.argsort(-costs, kind="stable") if spec.held_out else np.arange(len(costs))
    measured = costs[order][: spec.eval_rows]
    if (tokens := int(measured.sum())) > limit:
        fits = int(np.searchsorted(np.cumsum(measured), limit, side="right"))
        yield Excess("evaluation", "eval_rows", tokens, fits, int(order[measured.argmax()]))


def most(spec: JobSpec, train: Counts) -> int:
    """The tokens of the job's longest step, or somewhat more: of as many rows as a step has, the most expensive."""
    other = spec.method.beside
    return max(_own(spec, train), 0 if other is None else _beside(spec, train, other))


def _beside(spec: JobSpec, train: Counts, other: Beside) -> int:
    """Of a step that scores other rows: those, and what they and its minibatch cost once."""
    visit, once = (_ranked(spec, each) for each in (train.visit, train.once))
    return int(visit[: other.rows].sum()) * other.probes + int(once[: max(other.rows, spec.batch_size)].sum())


def _ranked(spec: JobSpec, tokens: Sequence[int]) -> NDArray[np.int64]:
    """The most first, of rows trained on as `_trained` takes them."""
    return np.sort(_trained(spec, np.asarray(tokens, dtype=np.int64)))[::-1]


def _own(spec: JobSpec, train: Counts) -> int:
    """Of a step on its minibatch."""
    rows = _trained(spec, _costs(train, spec.method.probes))
    minibatches = -(-spec.steps // spec.repeat)
    return _window(rows, spec.batch_size, one_epoch=minibatches * spec.batch_size <= len(rows))


def _costs(counts: Counts, probes: int) -> NDArray[np.int64]:
    """What each row costs the step that visits it, at its first visit."""
    visit, once = (np.asarray(each, dtype=np.int64) for each in (counts.visit, counts.once))
    return visit * probes + once


def _trained(spec: JobSpec, costs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most that the rows trained on can cost: where some are held out, as if those were the cheapest."""
    return np.sort(costs)[spec.held_out :] if spec.held_out else costs


def _window(rows: NDArray[np.int64], batch: int, one_epoch: bool = False) -> int:
    """The most that `batch` rows in a row can cost on a walk which visits each row once an epoch, in any order: a row
    is met twice where the window ends an epoch and begins another."""
    whole, rest = divmod(batch, len(rows))
    ranked = np.sort(rows)[::-1]
    if rest == 0:
        return whole * int(rows.sum())
    if one_epoch or (whole == 0 and len(rows) % batch == 0):
        return int(ranked[:batch].sum())
    if whole:
        whole, rest = whole - 1, rest + len(rows)
    return whole * int(rows.sum()) + int(np.repeat(ranked, 2)[:rest].sum())


def _largest(below: int, fits: Callable[[int], bool]) -> int:
    """One of the largest numbers under `below` that fit, 0 where 1 does not."""
    low, high = 0, below - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
