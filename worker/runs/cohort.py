"""How a cohort of runs steps together: ask, score once, tell. Pure; knows no SQL, no queue and no clock."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from worker.runs.run import Run
from worker.scoring.scorer import Scorer
from worker.types import Loss, Trial


@dataclass(frozen=True)
class Evaluation:
    """Held-out loss (nats, per target token for lm, per example for choice) and accuracy (0 for lm, which has none) of
    the adapter after `step` steps, on `rows` rows, for `tokens` scored tokens."""

    step: int
    loss: float
    accuracy: float
    rows: int
    tokens: int


@dataclass(frozen=True)
class StepResult:
    """What one call of `step` made of a run. `losses` is the journal row of the step taken, None where none was;
    `tokens` are the scored tokens of that row's probes, without `evaluation`'s own.

    What an adapter of activation `answer` does not act on is paid for once, whatever the engine keeps or has kept: by
    the step that visits a row first, and by the evaluation at step 0.
    """

    losses: tuple[float, ...] | None = None
    tokens: int = 0
    evaluation: Evaluation | None = None


def step(runs: Sequence[Run], scorer: Scorer) -> list[tuple[Run, StepResult]]:
    """One step of every run that is not done, all probes and the evaluations due in one `scorer.score` call.

    A run whose steps are all taken only has its last evaluation scored. Runs come back in their order.
    """
    work = [_trials(run) for run in runs]
    trials = [trial for mine in work for trial in mine]
    losses = iter(scorer.score(trials) if trials else [])
    return [_told(run, [next(losses) for _ in mine]) for run, mine in zip(runs, work, strict=True)]


def _trials(run: Run) -> list[Trial]:
    """The evaluation of the present adapter where it is due, then the probes of the step where one is left."""
    if run.done:
        return []
    trials: list[Trial] = []
    if run.evaluation_due:
        rows = run.data.valid[: run.spec.eval_rows]
        trials.append(Trial(run.layout, run.params, rows, run.spec.objective, run.scope))
    if run.step < run.spec.steps:
        batch = run.minibatch()
        probes = run.method.ask(run.params, run.state)
        trials += [Trial(run.layout, probe, batch, run.spec.objective, run.scope) for probe in probes]
    return trials


def _told(run: Run, losses: list[Loss]) -> tuple[Run, StepResult]:
    """The run with the losses of its `_trials`."""
    evaluation = None
    if losses and run.evaluation_due:
        evaluation = _evaluation(run, losses.pop(0))
        run = replace(run, best=_better(run.best, evaluation), evaluated=run.step)
    if not losses:
        return run, StepResult(evaluation=evaluation)
    tokens = sum(loss.tokens for loss in losses) + _first_met(run)
    row = tuple(loss.mean for loss in losses)
    params, state = run.method.tell(run.params, run.state, np.array(row, dtype=np.float64))
    return replace(run, params=params, state=state), StepResult(row, tokens, evaluation)


def _first_met(run: Run) -> int:
    """Prompt tokens of the rows that the step before `run` visits for the first time: an epoch visits each row once."""
    number, again = divmod(run.step, run.spec.repeat)
    first, rows = number * run.spec.batch_size, len(run.data.train)
    if again or first >= rows or not run.layout.invocation:
        return 0
    return sum(example.start for example in run.minibatch()[: rows - first])


def _evaluation(run: Run, loss: Loss) -> Evaluation:
    rows = run.data.valid[: run.spec.eval_rows]
    tokens = loss.tokens + (0 if run.step else sum(example.start for example in rows))
    return Evaluation(run.step, loss.mean, loss.accuracy, len(rows), tokens)


def _better(best: tuple[int, float] | None, evaluation: Evaluation) -> tuple[int, float] | None:
    """The earlier of equals; a loss that is not finite is never best."""
    if not math.isfinite(evaluation.loss) or (best is not None and best[1] <= evaluation.loss):
        return best
    return evaluation.step, evaluation.loss
