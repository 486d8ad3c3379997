"""Runs and how a cohort of them steps together: ask, score once, tell. Pure; knows no SQL, no queue and no clock."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from worker.runs import recipes
from worker.runs.data import Dataset
from worker.scoring.scorer import Scorer
from worker.types import Example, Layout, Loss, Params, Trial
from worker.zo.method import Method, State

NONFINITE_LIMIT: Final = 5  # steps in a row without finite losses after which a run has failed


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
class Run:
    """A job in a worker's memory, and what the last call of `step` made of it.

    `losses` is the journal row of step `run.step - 1`, None where the call took no step; `tokens` are the scored
    tokens of that row's probes, without `evaluation`'s own. `best` is (step, held-out loss).

    What an adapter of activation `answer` does not act on is paid for once, whatever the engine keeps or has kept: by
    the step that visits a row first, and by the evaluation at step 0.
    """

    job_id: str
    spec: JobSpec
    layout: Layout
    method: Method[State]
    data: Dataset
    params: Params
    state: State
    best: tuple[int, float] | None = None
    losses: tuple[float, ...] | None = None
    tokens: int = 0
    evaluation: Evaluation | None = None
    evaluated: int = -1  # the last step whose adapter was evaluated
    scope: str = ""  # whose it is, as trials say it

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.state.step

    def minibatch(self) -> tuple[Example, ...]:
        """The examples of the next step."""
        return self.data.minibatch(self.spec.seed, self.step, self.spec.batch_size, self.spec.repeat)

    @property
    def failed(self) -> str | None:
        """Why the run cannot go on, or None."""
        if self.state.nonfinite < NONFINITE_LIMIT:
            return None
        return f"losses were not finite at {self.state.nonfinite} steps in a row, the last of them step {self.step - 1}"

    @property
    def evaluation_due(self) -> bool:
        """Whether the adapter as it is now is still to be evaluated: after 0, eval_every, ... and the last step."""
        measured = min(self.spec.eval_rows, len(self.data.valid)) > 0
        due = self.step % self.spec.eval_every == 0 or self.step == self.spec.steps
        return measured and due and self.evaluated < self.step

    @property
    def done(self) -> bool:
        """All steps are taken and the last evaluation is in, or the run has failed."""
        return self.failed is not None or (self.step == self.spec.steps and not self.evaluation_due)


def start(job_id: str, spec: JobSpec, base: Base, data: Dataset, scope: str = "") -> Run:
    """The run before step 0. Raises `db.contract.tokens.base_model.UnknownTarget`."""
    layout = recipes.layout(spec, base)
    method = recipes.method(spec, layout)
    params, state = method.init()
    return Run(job_id, spec, layout, method, data, params, state, scope=scope)


def replay(run: Run, journal: Sequence[Sequence[float]], best: tuple[int, float] | None = None) -> Run:
    """The run after the journal rows of steps run.step, run.step + 1, ...: no forward pass, equal to the bit.

    `best` is what was recorded with the journal. An evaluation that was due at the step reached is due again.
    Raises ValueError for a row that is not one loss a probe.
    """
    params, state = run.params, run.state
    for row in journal:
        params, state = run.method.tell(params, state, np.asarray(row, dtype=np.float64))
    return replace(
        run, params=params, state=state, best=best or run.best, losses=None, tokens=0, evaluation=None, evaluated=-1
    )


def step(runs: Sequence[Run], scorer: Scorer) -> list[Run]:
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


def _told(run: Run, losses: list[Loss]) -> Run:
    """The run with the losses of its `_trials`."""
    evaluation = _evaluation(run, losses.pop(0)) if losses and run.evaluation_due else None
    best, evaluated = run.best, run.evaluated
    if evaluation is not None:
        best, evaluated = _better(best, evaluation), run.step
    run = replace(run, best=best, evaluation=evaluation, evaluated=evaluated, losses=None, tokens=0)
    if not losses:
        return run
    tokens = sum(loss.tokens for loss in losses) + _first_met(run)
    row = tuple(loss.mean for loss in losses)
    params, state = run.method.tell(run.params, run.state, np.array(row, dtype=np.float64))
    return replace(run, params=params, state=state, losses=row, tokens=tokens)


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
