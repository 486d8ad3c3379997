"""How a run's time with a worker ends, as a value. Pure; knows no database, no disk and no lease."""

from dataclasses import dataclass

from db.transitions import Wish
from worker.runs.run import Run


@dataclass(frozen=True)
class Lost:
    """Its lease is another's: what is not committed is void."""


@dataclass(frozen=True)
class Finished:
    """All its steps are taken and its last evaluation is in."""


@dataclass(frozen=True)
class Failed:
    """It cannot go on, or must not; the tenant reads why."""

    code: str
    message: str


@dataclass(frozen=True)
class Obeyed:
    """Its tenant wishes it."""

    wish: Wish


Ending = Lost | Finished | Failed | Obeyed


def ending(run: Run, *, lost: bool, wish: Wish | None, scored: int) -> Ending | None:
    """How the run ends as it now is, or None where it goes on. `scored` are all tokens that the job has cost.

    Nothing counts that a lost lease forbids to write; a run that has ended by itself has no use for a wish.
    """
    budget = run.spec.token_budget
    if lost:
        return Lost()
    if run.failed is not None:
        return Failed("nonfinite_loss", run.failed)
    if run.done:
        return Finished()
    if wish is not None:
        return Obeyed(wish)
    if budget is not None and scored > budget:
        return Failed("token_budget", f"the budget of {budget} scored tokens was spent at step {run.step}")
    return None
