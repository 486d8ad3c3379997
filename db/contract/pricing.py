"""What a job costs in scored tokens, exactly and before it runs. Knows token counts and the spec, no engine."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from db.contract.sampling import permutation, split
from db.contract.spec import JobSpec


@dataclass(frozen=True)
class Counts:
    """Scored tokens of every row of a file [rows], in its order: `visit` are paid by each probe that sees the row
    (`Encoded.tokens`), `once` by the first of a job that does (`Encoded.prompt`)."""

    visit: Sequence[int] = ()
    once: Sequence[int] = ()


@dataclass(frozen=True)
class Price:
    """Scored tokens: forward positions paid for, in all, by probes and by evaluations."""

    training: int
    evaluation: int

    @property
    def total(self) -> int:
        return self.training + self.evaluation


def evaluations(spec: JobSpec, steps: int | None = None) -> int:
    """How often the validation rows are scored: with the parameters after s steps, for every s in
    {0, eval_every, 2 eval_every, ...} up to `steps` and for s = steps, each s once. 0 where nothing is evaluated."""
    if spec.eval_rows == 0:
        return 0
    steps = spec.steps if steps is None else steps
    return steps // spec.eval_every + 1 + (steps % spec.eval_every != 0)


def price(spec: JobSpec, train: Counts, valid: Counts, steps: int | None = None) -> Price:
    """The price of the job, or of its first `steps` steps, ended there.

    `train` and `valid` are of the job's files, whole; rows held out of the training file are told apart here.
    A step pays each row of its minibatch, which `repeat` steps share, once a probe; an evaluation pays the first
    `eval_rows` validation rows. What a row costs once is paid at the first step that visits it, and for validation rows
    at the first evaluation. A step that scores other rows (`Beside`) is priced by those and by its minibatch.
    """
    steps = spec.steps if steps is None else steps
    train, valid = parted(spec, train, valid)
    visit, once = _whole(train.visit), _whole(train.once)
    whole, extra = divmod(steps, spec.repeat)
    walked = (spec.repeat - extra) * _walk(spec, visit, whole) + extra * _walk(spec, visit, whole + 1)
    met, beside, order = (whole + (extra > 0)) * spec.batch_size, 0, permutation(spec.seed, 0, len(once))
    if (other := spec.method.beside) is not None and steps:
        met = max(met, other.rows)
        beside = other.times(steps) * other.probes * int(visit[order[: other.rows]].sum())
    first = int(once[order[:met]].sum())
    # Without an evaluation there are no rows to evaluate.
    evaluated = evaluations(spec, steps) * int(_whole(valid.visit[: spec.eval_rows]).sum())
    evaluated += int(_whole(valid.once[: spec.eval_rows]).sum())
    return Price(training=spec.method.probes * walked + beside + first, evaluation=evaluated)


def first_met(spec: JobSpec, step: int, rows: int) -> range:
    """Of the `rows` trained on, those whose cost once a step pays, as places of the walk's first epoch: its own, and at
    step 0 the other rows that some steps score."""
    number, again = divmod(step, spec.repeat)
    first, last = number * spec.batch_size, min((number + 1) * spec.batch_size, rows)
    ahead = 0 if spec.method.beside is None else spec.method.beside.rows
    if step == 0:
        return range(max(last, ahead))
    return range(0) if again else range(max(first, ahead), last)


def parted(spec: JobSpec, train: Counts, valid: Counts) -> tuple[Counts, Counts]:
    """Of the rows that are trained on, and of those that are measured on."""
    if not spec.held_out:
        return train, valid
    trained, kept = split(spec.seed, len(train.visit), spec.held_out)
    return _picked(train, trained), _picked(train, kept)


def _picked(counts: Counts, rows: NDArray[np.int32]) -> Counts:
    return Counts(*(array("q", _whole(each)[rows].tobytes()) for each in (counts.visit, counts.once)))


def _walk(spec: JobSpec, tokens: NDArray[np.int64], minibatches: int) -> int:
    """Tokens of the rows of so many minibatches. An epoch visits each row once, so whole epochs need no order; only the
    last, begun one does."""
    epochs, begun = divmod(minibatches * spec.batch_size, len(tokens))
    return epochs * int(tokens.sum()) + int(tokens[permutation(spec.seed, epochs, len(tokens))[:begun]].sum())


def _whole(tokens: Sequence[int]) -> NDArray[np.int64]:
    return np.asarray(tokens, dtype=np.int64)


def steps_within(budget: int, spec: JobSpec, train: Counts, valid: Counts) -> int:
    """The most steps, up to spec.steps, whose price fits `budget` scored tokens; 0 where not one step does."""
    low, high = 0, spec.steps
    while low < high:
        middle = (low + high + 1) // 2
        if price(spec, train, valid, middle).total <= budget:
            low = middle
        else:
            high = middle - 1
    return low
