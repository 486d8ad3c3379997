"""How a cohort of runs steps together: ask, score, tell. Pure; knows no SQL, no queue and no clock."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from db.contract.objectives import OBJECTIVES
from db.contract.pricing import first_met
from worker.runs import fingerprint
from worker.runs.divergence import Rise, rise
from worker.runs.run import Run
from worker.scoring.scorer import Scorer
from worker.types import Example, Loss, Trial
from worker.zo.method import Measured, Probe, numbers_of


@dataclass(frozen=True)
class Evaluation:
    """Held-out loss (nats, per target token for lm, per example for choice) and accuracy (of as many; None where it was
    not measured) of the adapter after `step` steps, on `rows` rows, for `tokens` scored tokens.

    `noise` is the standard error of its difference to the start, nats, None where that is not known; `diverged` says
    that it has left its start, and `newly` that the one before had not. At step 0 `terms` are each row's sum.
    """

    step: int
    loss: float
    accuracy: float | None
    rows: int
    tokens: int
    noise: float | None = None
    diverged: bool = False
    newly: bool = False
    terms: tuple[float, ...] = ()


@dataclass(frozen=True)
class StepResult:
    """What one call of `step` made of a run. `losses` is the journal row of the step taken, None where none was; of a
    method that does not replay it ends with the hash of what the step led to (`db/contract/journal_row.py`);
    `tokens` are the scored tokens of that row's probes, of all phases, without `evaluation`'s own.

    What an adapter of activation `answer` does not act on is paid for once, whatever the engine keeps or has kept: by
    the step that visits a row first, and by the evaluation at step 0.
    """

    losses: tuple[float, ...] | None = None
    tokens: int = 0
    evaluation: Evaluation | None = None


@dataclass(frozen=True)
class Stepping:
    """A run in the middle of its step: what it has `heard`, and the `trials` it asks for next, none where the step is
    complete. Nothing of it is anywhere else: to give it up is to forget it."""

    run: Run
    trials: tuple[Trial, ...]
    heard: tuple[Loss, ...] = ()

    @property
    def tokens(self) -> int:
        """Scored tokens that it asks for."""
        return sum(t.tokens for t in self.trials)

    def hear(self, losses: Sequence[Loss]) -> "Stepping":
        """The same once its trials have these losses, and what the run's method asks for then."""
        heard = (*self.heard, *losses)
        return Stepping(self.run, tuple(_asked(self.run, heard)), heard)

    def tell(self) -> tuple[Run, StepResult]:
        """The run after its step, which is complete."""
        return _told(self.run, self.heard)


def ask(run: Run) -> Stepping:
    """The beginning of a run's next step. A run that is done asks for nothing; one whose steps are all taken only for
    its last evaluation."""
    return Stepping(run, tuple(_asked(run, ())))


class Batch:
    """Steps that are scored together, a wave at a time: first all evaluations due and all runs' probes; then, together,
    those of the runs whose method asks further for what it has heard. Raises what the scorer does."""

    def __init__(self, stepping: Sequence[Stepping], scorer: Scorer) -> None:
        self._scorer = scorer
        self._stepping = dict(enumerate(stepping))
        self._begin()

    @property
    def done(self) -> bool:
        """Nobody left in it asks for anything more."""
        return not any(self._places.values())

    @property
    def tokens(self) -> int:
        """Of the next wave's forward pass."""
        return self._scoring.tokens

    def advance(self) -> int:
        """Score the next wave; its tokens. After the last, whoever asks further is in the next waves."""
        tokens = self._scoring.advance()
        if self._scoring.done and not self.done:
            self._hear()
        return tokens

    def drop(self, number: int) -> None:
        """Give the step of the `number`-th up: what it alone asked for is not scored any more. The others' waves stay
        as they are."""
        if self._stepping.pop(number, None) is not None:
            for place in self._places.pop(number):
                self._scoring.drop(place)

    def told(self) -> dict[int, tuple[Run, StepResult]]:
        """The runs after their steps, by number, without those dropped. Raises ValueError before it is done."""
        if not self.done:
            raise ValueError("steps are still to be scored")
        return {number: stepping.tell() for number, stepping in self._stepping.items()}

    def _begin(self) -> None:
        trials: list[Trial] = []
        self._places: dict[int, range] = {}
        for number, stepping in self._stepping.items():
            self._places[number] = range(len(trials), len(trials) + len(stepping.trials))
            trials += stepping.trials
        self._scoring = self._scorer.start(trials)

    def _hear(self) -> None:
        """What the waves have given, to each its own."""
        losses = self._scoring.losses
        for number, places in self._places.items():
            if places:
                heard = losses[places.start : places.stop]
                self._stepping[number] = self._stepping[number].hear(heard)
        self._begin()


def step(runs: Sequence[Run], scorer: Scorer) -> list[tuple[Run, StepResult]]:
    """One step of every run that is not done, in one batch. Runs come back in their order."""
    batch = Batch([ask(run) for run in runs], scorer)
    while not batch.done:
        batch.advance()
    return list(batch.told().values())


def _asked(run: Run, heard: Sequence[Loss]) -> list[Trial]:
    """What is to be scored next of the run's step: at first the evaluation of the adapter as it is, where it is due,
    and the first probes; then what the method asks further, and nothing once the step is complete."""
    if run.done:
        return []
    trials: list[Trial] = []
    if run.evaluation_due and not heard:
        rows = run.data.valid[: run.spec.eval_rows]
        greedy = OBJECTIVES[run.spec.objective].greedy
        trials.append(Trial(run.layout, run.params, rows, run.spec.objective, run.scope, greedy))
    if run.step < run.spec.steps:
        _, losses = _divided(run, heard)
        probes = run.method.ask(run.params, run.state, _measured(losses))
        batch = run.minibatch() if probes else ()
        trials += [_trial(run, probe, batch) for probe in probes]
    return trials


def _trial(run: Run, probe: Probe, batch: tuple[Example, ...]) -> Trial:
    rows = run.data.asked(run.spec.seed, probe.rows, batch)
    trial = Trial(run.layout, probe.params, rows, run.spec.objective, run.scope)
    return replace(trial, tangent=probe.tangent, gradient=probe.gradient, since=probe.since)


def _told(run: Run, heard: Sequence[Loss]) -> tuple[Run, StepResult]:
    """The run after all that its step has heard."""
    held_out, losses = _divided(run, heard)
    after, evaluation = run, None
    if held_out is not None:
        evaluation = _evaluation(run, held_out)
        after = _evaluated(run, evaluation)
    if not losses:
        return after, StepResult(evaluation=evaluation)
    measured = _measured(losses)
    params, state = run.method.tell(run.params, run.state, measured)
    tokens = sum(loss.tokens for loss in losses) + _first_met(run)
    after = _judged(replace(after, params=params, state=state), evaluation)
    row = numbers_of(measured) + (() if after.method.replays else fingerprint.numbers(after.params))
    return after, StepResult(row, tokens, evaluation)


def _evaluated(run: Run, evaluation: Evaluation) -> Run:
    best = _better(run.best, evaluation)
    better = best != run.best
    watch = run.watch.heard(better=better, diverged=evaluation.diverged, start=evaluation.terms)
    point = run.point if better else run.best_point
    return replace(run, best=best, best_point=point, evaluated=run.step, watch=watch)


def _judged(run: Run, evaluation: Evaluation | None) -> Run:
    """What the run does about an evaluation, once the step is taken that was scored with it, and about losses that are
    not finite any more: as it is, stopped, or gone back. With its last step taken it ends as any other."""
    if run.step == run.spec.steps:
        return run
    reason = run.watch.reason(run.spec) if evaluation is not None and run.best is not None else None
    lost = reason == "diverged" or run.failed is not None
    if lost and run.best_point is not None and run.watch.may_restart(run.spec):
        return run.back()
    return replace(run, watch=replace(run.watch, stopped=reason))


def _divided(run: Run, heard: Sequence[Loss]) -> tuple[Loss | None, Sequence[Loss]]:
    """The evaluation's loss, where one was due, and the probes' in the order asked."""
    return (heard[0], heard[1:]) if heard and run.evaluation_due else (None, heard)


def _measured(losses: Sequence[Loss]) -> tuple[Measured, ...]:
    return tuple(Measured(loss.mean, loss.slope, loss.gradient) for loss in losses)


def _first_met(run: Run) -> int:
    """Prompt tokens of the rows that the step before `run` visits for the first time: an epoch visits each row once."""
    places = first_met(run.spec, run.step, len(run.data.train)) if run.layout.invocation else ()
    return sum(example.start for example in run.data.asked(run.spec.seed, places, ()))


def _evaluation(run: Run, loss: Loss) -> Evaluation:
    rows = run.data.valid[: run.spec.eval_rows]
    tokens = loss.tokens + (0 if run.step else sum(example.start for example in rows))
    accuracy = loss.accuracy if OBJECTIVES[run.spec.objective].has_accuracy else None
    found = Evaluation(run.step, loss.mean, accuracy, len(rows), tokens)
    if run.step == 0:
        known = math.isfinite(loss.mean)
        return replace(found, terms=tuple(total for total, _ in loss.rows) if known else ())
    risen = _rise(run, loss)
    newly = risen.diverged and not run.watch.diverged
    return replace(found, noise=risen.error, diverged=risen.diverged, newly=newly)


def _rise(run: Run, loss: Loss) -> Rise:
    """Since the start; where that is not known, only what is not finite is told from noise, after what was."""
    if run.watch.start and len(run.watch.start) == len(loss.rows):
        return rise(run.watch.start, loss.rows)
    return Rise(0.0 if run.best is None or math.isfinite(loss.mean) else math.nan, None, 0.0)


def _better(best: tuple[int, float] | None, evaluation: Evaluation) -> tuple[int, float] | None:
    """The earlier of equals; a loss that is not finite is never best."""
    if not math.isfinite(evaluation.loss) or (best is not None and best[1] <= evaluation.loss):
        return best
    return evaluation.step, evaluation.loss
