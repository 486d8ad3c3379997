"""Language modelling: the log-probability of every target. Knows no engine and no method."""

from worker.objectives.base import Objective, Rows, Term
from worker.types import Example


def _term(_: Example, rows: Rows) -> Term:
    return Term(tuple(-float(x) for row in rows for x in row))


# Whether a target was the most likely token is not in its log-probability, so there is no accuracy.
LM = Objective(needs="logprobs", has_accuracy=False, term=_term)
