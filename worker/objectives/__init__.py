"""How each objective's loss is computed, by its name in `db/contract/objectives.py`: one file and one line each.

Knows no engine and no method.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from worker.objectives import choice, lm
from worker.objectives.base import Share, summed
from worker.types import Greedy, LogProbs, Loss, Trial

SHARES: Final[Mapping[str, Share]] = {
    "lm": lm.share,
    "choice": choice.share,
}


def loss(trial: Trial, logprobs: LogProbs, greedy: Greedy | None = None) -> Loss:
    """The loss of a trial whose scored texts have these log-probabilities; `greedy` is what a trial that asks for it is
    told beside them. Raises ValueError for an unknown objective, and where `logprobs` has not the shape of the trial.
    """
    if trial.objective not in SHARES:
        raise ValueError(f"unknown objective {trial.objective!r}")
    return summed(SHARES[trial.objective], trial.examples, logprobs, greedy)


def losses(trials: Sequence[Trial], logprobs: Sequence[LogProbs], greedy: Sequence[Greedy | None]) -> list[Loss]:
    """`loss` of each."""
    return [loss(*each) for each in zip(trials, logprobs, greedy, strict=True)]
