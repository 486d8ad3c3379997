"""The objectives by name: one file an objective, one line here. Knows no engine and no method."""

from typing import Final

from worker.objectives.base import Objective
from worker.objectives.choice import CHOICE
from worker.objectives.lm import LM
from worker.types import LogProbs, Loss, Trial

OBJECTIVES: Final[dict[str, Objective]] = {
    "lm": LM,
    "choice": CHOICE,
}


def named(name: str) -> Objective:
    """Raises ValueError for a name that is none."""
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}")
    return OBJECTIVES[name]


def loss(trial: Trial, logprobs: LogProbs) -> Loss:
    """The loss of a trial whose scored texts have these log-probabilities. Raises ValueError for an unknown objective,
    and where `logprobs` has not the shape of the trial."""
    objective = named(trial.objective)
    match objective.needs:  # another measure is another case, and another argument
        case "logprobs":
            return objective.loss(trial.examples, logprobs)
