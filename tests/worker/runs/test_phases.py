"""Runs whose steps have phases, beside runs whose have not: rounds within a step, one row, nothing paid twice."""

from collections.abc import Sequence
from dataclasses import replace

from db.contract.spec import AdapterSpec
from tests.worker.linear import BASE, LinearScorer, dataset, spec
from tests.worker.zo.conservative import Conservative, State
from worker.adapters.snapshots import Prefix, Snapshots
from worker.runs import cohort
from worker.runs.cohort import StepResult
from worker.runs.data import Dataset
from worker.runs.replay import replay
from worker.runs.run import NONFINITE_LIMIT, Run, start
from worker.scoring.scorer import Scorer
from worker.types import Loss, Trial

ANSWER = AdapterSpec(rank=4, alpha=8.0, targets=("q_proj",), activation="answer", invocation=(5,))


class Listening(LinearScorer):
    """Keeps the trials of every call; from the `silent_from`-th on all losses are 1."""

    def __init__(self, broken_from: int | None = None, silent_from: int | None = None) -> None:
        super().__init__(broken_from)
        self.heard: list[list[Trial]] = []
        self._silent_from = silent_from

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        self.heard.append(list(trials))
        losses = super().score(trials)
        silent = self._silent_from is not None and self.calls >= self._silent_from
        return [replace(loss, total=float(loss.count)) for loss in losses] if silent else losses


def looking(data: Dataset | None = None, **changes) -> Run:
    """A run of the toy of two phases."""
    run = start("ftjob-two", spec(**changes), BASE, data or dataset(0))
    method = Conservative(run.layout, seed=3, eps=1e-2, rate=0.1)
    params, state = method.init()
    return replace(run, method=method, params=params, state=state)


def finish(runs: list[Run], scorer: Scorer) -> tuple[list[Run], list[list[StepResult]]]:
    seen: list[list[StepResult]] = [[] for _ in runs]
    while not all(run.done for run in runs):
        stepped = cohort.step(runs, scorer)
        runs = [run for run, _ in stepped]
        for own, (_, result) in zip(seen, stepped, strict=True):
            own.append(result)
    return runs, seen


def rows(seen: list[StepResult]) -> list[tuple[float, ...]]:
    return [result.losses for result in seen if result.losses is not None]


def test_a_second_phase_joins_the_cohorts_next_call_within_the_step():
    two, one, other = looking(), start("ftjob-one", spec(), BASE, dataset(0)), looking(seed=2)
    scorer = Listening()
    stepped = cohort.step([two, one, other], scorer)
    assert [len(trials) for trials in scorer.heard] == [3 * (1 + 2), 2 * 3]  # evaluations and pairs, then second looks
    assert [run.step for run, _ in stepped] == [1, 1, 1]
    assert [len(result.losses) for _, result in stepped] == [5, 2, 5]
    for trials, run in ((scorer.heard[1][:3], two), (scorer.heard[1][3:], other)):
        for trial in trials:  # on the step's own minibatch again
            assert [id(e) for e in trial.examples] == [id(e) for e in run.minibatch()]


def test_company_of_another_number_of_phases_changes_nothing():
    alone = [finish([run], LinearScorer()) for run in (looking(), start("ftjob-one", spec(), BASE, dataset(0)))]
    together, seen = finish([looking(), start("ftjob-one", spec(), BASE, dataset(0))], LinearScorer())
    for run, own, ((separate,), (its_own,)) in zip(together, seen, alone, strict=True):
        assert run.params.tobytes() == separate.params.tobytes()
        assert own == its_own
        assert run.best == separate.best


def test_a_run_of_two_phases_learns_and_replays_to_the_bit_from_its_rows(tmp_path):
    first = looking(steps=150)
    (done,), (seen,) = finish([first], LinearScorer())
    journal = rows(seen)
    assert len(journal) == 150
    evaluations = [result.evaluation for result in seen if result.evaluation]
    assert evaluations[-1].loss < 0.9 * evaluations[0].loss
    again = replay(first.method, journal)
    assert (again.params.tobytes(), again.state) == (done.params.tobytes(), done.state)
    snapshots = Snapshots(tmp_path)
    snapshots.write("ftjob-two", replay(first.method, journal[:70]), Prefix(first.spec, journal[:70]).hex())
    found = snapshots.newest("ftjob-two", first.spec, journal, State)
    assert found is not None
    assert found.state.step == 70
    resumed = first.at(replay(first.method, journal[:100], found))
    assert finish([resumed], LinearScorer())[0][0].params.tobytes() == done.params.tobytes()


def test_tokens_of_all_phases_are_counted_and_first_met_prompts_once():
    data = dataset(0)
    answering = Dataset(tuple(replace(e, start=i % 4) for i, e in enumerate(data.train)), data.valid)
    run = looking(answering, adapter=ANSWER, steps=9)
    _, (seen,) = finish([run], LinearScorer())
    at = [replace(run, state=State(step=step)).minibatch() for step in range(9)]
    met = [sum(e.start for e in minibatch) if step < 3 else 0 for step, minibatch in enumerate(at)]  # an epoch: 3
    paid = [5 * sum(e.tokens for e in minibatch) for minibatch in at]
    assert min(met[:3]) > 0
    assert [r.tokens for r in seen if r.losses is not None] == [a + b for a, b in zip(paid, met, strict=True)]


def test_a_step_that_has_heard_enough_ends_after_its_first_phase():
    scorer = Listening(silent_from=3)  # the pair of the second step has no slope
    run = looking()
    for _ in range(2):
        ((run, result),) = cohort.step([run], scorer)
    assert [len(trials) for trials in scorer.heard] == [3, 3, 2]
    assert result.losses == (1.0, 1.0)
    assert run.step == 2


def test_a_run_of_two_phases_that_stops_being_finite_fails():
    (run,), (seen,) = finish([looking(steps=100)], LinearScorer(broken_from=9))
    assert [len(row) for row in rows(seen)] == [5] * 4 + [2] * NONFINITE_LIMIT
    assert run.failed is not None
