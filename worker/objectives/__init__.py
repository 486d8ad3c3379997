"""How each objective's loss is computed, by its name in `db/contract/objectives.py`: one file and one line each.

Knows no engine and no method.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.objectives import choice, lm
from worker.objectives.base import Share, Slopes, summed
from worker.types import Example, Greedy, LogProbs, Loss, Trial

SHARES: Final[Mapping[str, Share]] = {
    "lm": lm.share,
    "choice": choice.share,
}
SLOPES: Final[Mapping[str, Slopes]] = {"lm": lm.slopes, "choice": choice.slopes}  # of those that have a derivative


def loss(trial: Trial, logprobs: LogProbs, greedy: Greedy | None = None) -> Loss:
    """The loss of a trial whose scored texts have these log-probabilities; `greedy` is what a trial that asks for it is
    told beside them. Raises ValueError for an unknown objective, and where `logprobs` has not the shape of the trial.
    """
    if trial.objective not in SHARES:
        raise ValueError(f"unknown objective {trial.objective!r}")
    found = summed(SHARES[trial.objective], trial.examples, logprobs, greedy)
    return replace(found, tokens=trial.tokens)


def slopes(trial: Trial, examples: Sequence[Example], logprobs: LogProbs) -> list[NDArray[np.float64]]:
    """The derivative of the sum of these examples' terms by each log-probability, over examples and candidates, float64
    [targets]; NaN where a log-probability is not finite. That of the trial's mean is this over its count. Raises
    ValueError for an objective without a derivative."""
    if trial.objective not in SLOPES:
        raise ValueError(f"objective {trial.objective!r} has no derivative")
    each = SLOPES[trial.objective]
    return [x for example, rows in zip(examples, logprobs, strict=True) for x in each(example, rows)]


def losses(trials: Sequence[Trial], logprobs: Sequence[LogProbs], greedy: Sequence[Greedy | None]) -> list[Loss]:
    """`loss` of each."""
    return [loss(*each) for each in zip(trials, logprobs, greedy, strict=True)]
