"""Runs on a real, small problem: what is asked of the scorer, what is journalled, what a replay gives back."""

import math
from dataclasses import replace

import numpy as np
import pytest

from db.contract import pricing, sampling
from db.contract.objectives import OBJECTIVES
from db.contract.spec import AdapterSpec
from tests.worker.linear import BASE, LinearScorer, dataset, spec
from worker.runs import cohort
from worker.runs.cohort import StepResult
from worker.runs.data import Dataset
from worker.runs.replay import replay
from worker.runs.run import NONFINITE_LIMIT, Run
from worker.runs.run import start as begin
from worker.types import Trial

METHODS = [
    {},
    {"estimator": "one_sided", "queries": 3},
    {"optimizer": "adam", "learning_rate": 0.05},
    {"name": "lozo", "window_rank": 2, "nu": 7, "learning_rate": 0.1},
]


def start(job_id="ftjob-a", data=None, **changes) -> Run:
    return begin(job_id, spec(**changes), BASE, data or dataset(0))


def finish(run: Run, scorer: LinearScorer) -> tuple[Run, list[StepResult]]:
    """The run when it is done, and what each call gave."""
    seen = []
    while not run.done:
        ((run, result),) = cohort.step([run], scorer)
        seen.append(result)
    return run, seen


def rows(seen: list[StepResult]) -> list[tuple[float, ...]]:
    """The journal."""
    return [result.losses for result in seen if result.losses is not None]


def resumed(run: Run, journal, best=None) -> Run:
    return run.at(replay(run.method, journal), best)


@pytest.mark.parametrize("method", METHODS)
def test_learns_and_replays_to_the_bit(method):
    first = start(method=method, steps=150)
    done, seen = finish(first, LinearScorer())
    journal = rows(seen)
    assert len(journal) == done.step == 150
    evaluations = [r.evaluation for r in seen if r.evaluation]
    assert evaluations[0].loss == pytest.approx(math.log(3), rel=1e-6)
    assert evaluations[-1].loss < 0.9 * evaluations[0].loss
    again = resumed(first, journal, done.best)
    assert again.params.tobytes() == done.params.tobytes()
    assert repr(again.state) == repr(done.state)
    assert (again.step, again.best, again.failed) == (150, done.best, None)
    best = resumed(first, journal[: done.best[0]])
    last = replace(best, spec=best.spec.model_copy(update={"steps": best.step}))
    again, held_out = finish(last, LinearScorer())[1], min(e.loss for e in evaluations)
    assert again[-1].evaluation.loss == done.best[1] == held_out


def test_a_cohort_is_scored_in_one_call_and_as_if_alone():
    runs = [start("ftjob-a"), start("ftjob-b", seed=2, method=METHODS[1]), start("ftjob-c", data=dataset(3), steps=5)]
    alone = [finish(run, LinearScorer())[0] for run in runs]
    scorer, calls = LinearScorer(), 0
    while not all(run.done for run in runs):
        runs = [run for run, _ in cohort.step(runs, scorer)]
        calls += 1
    assert scorer.calls == calls == 41  # 40 steps, then the last evaluation
    for together, separate in zip(runs, alone, strict=True):
        assert together.job_id == separate.job_id
        assert together.params.tobytes() == separate.params.tobytes()
        assert together.best == separate.best


def test_evaluations_ride_along_and_are_due_once():
    done, seen = finish(start(steps=25, method=METHODS[1]), LinearScorer())
    assert [r.evaluation.step for r in seen if r.evaluation] == [0, 10, 20, 25]
    assert (len(rows(seen)), done.step) == (25, 25)
    assert seen[-1].losses is None
    assert seen[-1].evaluation.rows == 20
    scorer = LinearScorer()
    cohort.step([start(method=METHODS[1])], scorer)
    held_out, *probes = scorer.trials
    assert len(held_out.examples) == 20
    assert [len(p.examples) for p in probes] == [20] * 4
    assert len({id(e) for p in probes for e in p.examples}) == 20  # every probe on the same minibatch
    assert cohort.step([done], scorer) == [(done, StepResult())]
    assert scorer.calls == 1


def test_only_evaluations_ask_for_the_likeliest_tokens_and_only_where_the_accuracy_is_of_them():
    scorer = LinearScorer()
    stepped = cohort.step([start(objective="lm"), start(objective="choice")], scorer)
    assert [t.greedy for t in scorer.trials] == [True, False, False, False, False, False]
    lm, choice = (result.evaluation for _, result in stepped)
    assert lm.accuracy is None  # not measured: this scorer does not tell
    assert 0 <= choice.accuracy <= 1


def test_an_objective_without_accuracy_has_none_whatever_a_scorer_counts(monkeypatch):
    class Counting(LinearScorer):
        def score(self, trials):
            return [replace(loss, hits=1) for loss in super().score(trials)]

    monkeypatch.setitem(OBJECTIVES, "lm", replace(OBJECTIVES["lm"], has_accuracy=False))
    stepped = cohort.step([start(objective="lm"), start(objective="choice")], Counting())
    assert [result.evaluation.accuracy for _, result in stepped] == [None, 1 / 20]


def test_without_held_out_rows_there_is_no_evaluation_and_no_best():
    done, seen = finish(start(steps=10, data=dataset(0, valid=0)), LinearScorer())
    assert len(seen) == 10
    assert done.best is None
    assert not any(r.evaluation for r in seen)


def counts(examples) -> pricing.Counts:
    return pricing.Counts([e.tokens for e in examples], [e.start for e in examples])


def answering(data: Dataset) -> Dataset:
    """The same rows with prompts of 0 to 3 tokens before the adapter starts."""
    train, valid = (tuple(replace(e, start=i % 4) for i, e in enumerate(x)) for x in (data.train, data.valid))
    return Dataset(train, valid)


@pytest.mark.parametrize("activation", ["all", "answer"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 23])  # 3 minibatches are one epoch
@pytest.mark.parametrize("repeat", [1, 2, 5])
def test_tokens_are_the_price(activation, steps, repeat):
    job, data = spec(steps=steps, repeat=repeat), dataset(0)
    if activation == "answer":
        adapter = AdapterSpec(rank=4, alpha=8.0, targets=("q_proj",), activation="answer", invocation=(5,))
        job, data = job.model_copy(update={"adapter": adapter}), answering(data)
    _, seen = finish(begin("ftjob-a", job, BASE, data), LinearScorer())
    paid = sum(r.tokens for r in seen), sum(r.evaluation.tokens for r in seen if r.evaluation)
    price = pricing.price(job, counts(data.train), counts(data.valid))
    assert paid == (price.training, price.evaluation)


@pytest.mark.parametrize("repeat", [1, 3])
@pytest.mark.parametrize("ahead", [7, 45])
def test_a_method_s_own_rows_are_scored_and_priced(ahead, repeat):
    """60 rows, 3 minibatches an epoch. A refresh scores the first rows of the walk and no minibatch; the price has
    both, and prompts are paid for once, at their place in the first epoch or at the first refresh."""
    adapter = AdapterSpec(rank=4, alpha=8.0, targets=("q_proj",), activation="answer", invocation=(5,))
    svrg = {"name": "svrg", "anchor_rows": ahead, "anchor_every": 4, "anchor_queries": 3, "learning_rate": 0.05}
    job = spec(steps=14, method=svrg, repeat=repeat).model_copy(update={"adapter": adapter})
    data, scorer = answering(dataset(0)), LinearScorer()
    first = begin("ftjob-a", job, BASE, data)
    order = sampling.permutation(job.seed, 0, 60)
    run, seen, unscored = first, [], 0
    while run.step < 14:
        minibatch = run.minibatch()
        ((run, result),) = cohort.step([run], scorer)
        asked = [t.examples for t in scorer.trials]
        asked = asked[-len(result.losses) :]
        own = tuple(data.train[i] for i in order[:ahead])
        refresh = (run.step - 1) % 4 == 0
        assert asked == [own if refresh else minibatch] * (6 if refresh else 4)
        unscored += 4 * sum(e.tokens for e in minibatch) if refresh else 0
        seen.append(result)
    price = pricing.price(job, counts(data.train), counts(data.valid))
    assert sum(r.tokens for r in seen) == price.training - unscored
    assert resumed(first, rows(seen)).params.tobytes() == run.params.tobytes()


def test_prompts_are_paid_for_once_however_often_a_run_changes_hands():
    adapter = AdapterSpec(rank=4, alpha=8.0, targets=("q_proj",), activation="answer", invocation=(5,))
    job, data = spec(steps=9).model_copy(update={"adapter": adapter}), answering(dataset(0))
    first = begin("ftjob-a", job, BASE, data)
    _, seen = finish(first, LinearScorer())
    journal = rows(seen)
    tokens = []
    for taken in range(len(journal)):
        taken_over = replace(resumed(first, journal[:taken]), evaluated=taken)
        ((_, result),) = cohort.step([taken_over], LinearScorer())
        tokens.append(result.tokens)
    assert tokens == [r.tokens for r in seen if r.losses is not None]


def test_a_minibatch_serves_as_many_steps_as_asked_with_fresh_directions():
    run, scorer, seen = start(steps=7, repeat=3, data=dataset(0, valid=0)), LinearScorer(), []
    while not run.done:
        ((run, _),) = cohort.step([run], scorer)
        seen.append(scorer.trials)
    rows = [[id(e) for e in trials[0].examples] for trials in seen]
    assert rows[0] == rows[1] == rows[2] != rows[3] == rows[4] == rows[5] != rows[6]
    ups = [(trials[0].params - trials[1].params).tobytes() for trials in seen]
    assert len(set(ups)) == 7


def test_trials_say_whose_they_are():
    scorer = LinearScorer()
    run = begin("ftjob-a", spec(), BASE, dataset(0), "tenant-a")
    cohort.step([run], scorer)
    assert {t.scope for t in scorer.trials} == {"tenant-a"}


def test_a_run_that_stops_being_finite_fails_and_keeps_its_best():
    run, seen = finish(start(steps=100), LinearScorer(broken_from=8))
    assert run.step == 7 + NONFINITE_LIMIT
    assert (
        run.failed == f"losses were not finite, or too large for a finite update, at {NONFINITE_LIMIT} steps in a row, "
        f"the last of them step {run.step - 1}"
    )
    assert run.done
    assert run.best == (0, pytest.approx(math.log(3), rel=1e-6))
    assert run.params.tobytes() == replay(run.method, rows(seen)[:7]).params.tobytes()
    journal = rows(seen)
    assert resumed(start(steps=100), journal).failed == run.failed
    assert len(cohort.step([run, start()], LinearScorer())) == 2


@pytest.mark.parametrize(
    "method", [{}, {"optimizer": "adam"}, {"name": "lozo", "window_rank": 2, "optimizer": "momentum"}]
)
def test_finite_losses_too_large_to_step_by_fail_a_run_with_the_reason(method):
    class Huge(LinearScorer):
        def score(self, trials):
            return [replace(loss, total=i * 1e40 * loss.count) for i, loss in enumerate(super().score(trials))]

    first = start(steps=100, method=method, data=dataset(0, valid=0))
    run, seen = finish(first, Huge())
    assert rows(seen) == [(0.0, 1e40)] * NONFINITE_LIMIT
    assert "too large for a finite update" in run.failed
    assert f"{NONFINITE_LIMIT} steps in a row, the last of them step {NONFINITE_LIMIT - 1}" in run.failed
    assert run.params.tobytes() == first.params.tobytes()
    assert resumed(first, rows(seen)).failed == run.failed


def test_a_held_out_loss_that_is_not_finite_is_never_best():
    run, _ = finish(start(steps=3, eval_every=1), LinearScorer(broken_from=1))
    assert run.best is None


def test_a_resumed_run_goes_on_where_it_was():
    whole, seen = finish(start(), LinearScorer())
    journal = rows(seen)
    for taken in (0, 10, 17, 40):
        assert finish(resumed(start(), journal[:taken]), LinearScorer())[0].params.tobytes() == whole.params.tobytes()


def test_a_row_of_another_width_is_refused():
    with pytest.raises(ValueError, match="losses for"):
        resumed(start(), [[1.0, 2.0, 3.0]])


def test_runs_are_frozen_and_stepping_changes_no_input():
    run = start()
    params = run.params.copy()
    run.params.setflags(write=False)
    cohort.step([run], LinearScorer())
    assert run.step == 0
    np.testing.assert_array_equal(run.params, params)
    with pytest.raises(AttributeError):
        run.best = None


def test_the_bare_base_scores_as_an_adapter_that_is_zero():
    run = start()
    bare = Trial(None, None, run.data.valid, "choice")
    untouched = Trial(run.layout, run.params, run.data.valid, "choice")
    assert [x.total for x in LinearScorer().score([bare])] == [x.total for x in LinearScorer().score([untouched])]
