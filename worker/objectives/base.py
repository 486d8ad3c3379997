"""How the shares of a trial's examples become its loss. Knows no objective by name, no engine and no method."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numpy import bool_, float32, float64
from numpy.typing import NDArray

from worker.types import Example, Greedy, LogProbs, Loss

Rows = Sequence[NDArray[float32]]  # one example's log-probabilities: over candidates, [targets], nats
Best = Sequence[NDArray[bool_]] | None  # in the same shape, which targets are the likeliest token; None: not asked


@dataclass(frozen=True)
class Term:
    """What one example adds to a loss: `losses`, nats, float64, and how many of them count as right, None where that
    cannot be told."""

    losses: tuple[float, ...]
    hits: int | None = 0


# The derivative of the sum of an example's terms by each of its log-probabilities: over candidates, float64 [targets].
Slopes = Callable[[Example, Rows], list[NDArray[float64]]]
Share = Callable[[Example, Rows, Best], Term]  # an objective: what an example and its log-probabilities come to


def summed(share: Share, examples: Sequence[Example], logprobs: LogProbs, greedy: Greedy | None = None) -> Loss:
    """The loss of `examples` whose scored texts have these log-probabilities, nats and float64: the exactly rounded sum
    of all terms, NaN where one is not finite. Raises ValueError where the shapes differ."""
    for example, rows in zip(examples, logprobs, strict=True):
        if [len(c.targets) for c in example.candidates] != [len(r) for r in rows]:
            raise ValueError("log-probabilities do not match the targets of the trial")
    best: Sequence[Best] = [None] * len(examples) if greedy is None else greedy
    terms = [share(e, rows, b) for e, rows, b in zip(examples, logprobs, best, strict=True)]
    losses = [x for term in terms for x in term.losses]
    hits = [t.hits for t in terms if t.hits is not None]
    right = sum(hits) if len(hits) == len(terms) else None
    each = tuple((total(term.losses), len(term.losses)) for term in terms)
    return Loss(total(losses), len(losses), right, sum(e.tokens for e in examples), each)


def total(terms: Sequence[float]) -> float:
    """The exactly rounded sum; NaN where a term is not finite (`fsum` raises on inf - inf)."""
    return math.fsum(terms) if all(map(math.isfinite, terms)) else math.nan
