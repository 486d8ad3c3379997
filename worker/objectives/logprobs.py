"""What the log-probabilities of a trial amount to: a loss. Knows no engine and no method."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worker.types import Example, LogProbs, Loss, Trial


def reduce(trial: Trial, logprobs: LogProbs) -> Loss:
    """The loss of `trial`, whose scored texts have the log-probabilities `logprobs`, in nats and float64.

    `lm`: total = -sum of target log-probabilities, count = targets. Hits are 0: whether a target was the most likely
    token is not in `logprobs`, so an lm run has no accuracy.
    `choice`: the cross-entropy MeZO trains (arXiv 2305.17333, appendix E): with s_k the mean log-probability of
    candidate k, total = sum over examples of logsumexp(s) - s_label, count = examples, hits = examples where s_label
    is the first largest. A log-probability that is not finite makes the total not finite and never a hit.
    Raises ValueError for an unknown objective, and where `logprobs` has not the shape of the trial.
    """
    for example, rows in zip(trial.examples, logprobs, strict=True):
        if [len(c.targets) for c in example.candidates] != [len(r) for r in rows]:
            raise ValueError("log-probabilities do not match the targets of the trial")
    if trial.objective == "lm":
        terms = [-float(x) for rows in logprobs for row in rows for x in row]
        return Loss(total=_total(terms), count=len(terms), hits=0, tokens=trial.tokens)
    if trial.objective == "choice":
        scored = [_choice(e, rows) for e, rows in zip(trial.examples, logprobs, strict=True)]
        return Loss(
            total=_total([loss for loss, _ in scored]),
            count=len(scored),
            hits=sum(hit for _, hit in scored),
            tokens=trial.tokens,
        )
    raise ValueError(f"unknown objective {trial.objective!r}")


def has_accuracy(objective: str) -> bool:
    """Whether `Loss.hits` means something for this objective."""
    return objective == "choice"


def _choice(example: Example, rows: Sequence[NDArray[np.float32]]) -> tuple[float, bool]:
    """(cross-entropy of the candidates' mean log-probabilities, whether the label's is the first largest)."""
    scores = [_total([float(x) for x in row]) / len(row) for row in rows]
    if not all(map(math.isfinite, scores)):
        return math.nan, False
    peak = max(scores)
    loss = peak + math.log(math.fsum(math.exp(s - peak) for s in scores)) - scores[example.label]
    return loss, scores.index(peak) == example.label


def _total(terms: list[float]) -> float:
    """The exactly rounded sum; nan where a term is not finite (`fsum` raises on inf - inf)."""
    return math.fsum(terms) if all(map(math.isfinite, terms)) else math.nan
