"""Steps under way: what is scored in between, and who gives up, changes nothing of what the others come to."""

from dataclasses import replace

import pytest

from tests.worker.linear import BASE, LinearScorer, dataset, spec
from tests.worker.runs.test_phases import looking
from worker.forwards import Forward, Scoring
from worker.runs import cohort
from worker.runs.cohort import Batch, ask
from worker.runs.run import Run
from worker.runs.run import start as begin


class Waved(LinearScorer):
    """A wave a trial."""

    def start(self, trials):
        losses = {}

        def act(number, trial) -> None:
            self.calls += 1
            self.trials.append(trial)
            losses[number] = self._loss(trial)

        forwards = [
            Forward(frozenset((n,)), trial.tokens, lambda n=n, t=trial: act(n, t)) for n, trial in enumerate(trials)
        ]
        return Scoring(forwards, lambda: [losses.get(n) for n in range(len(trials))])


def start(job_id: str, **changes) -> Run:
    return begin(job_id, spec(**changes), BASE, dataset(0))


def told(batch: Batch) -> list[bytes]:
    while not batch.done:
        batch.advance()
    return [run.params.tobytes() for run, _ in batch.told().values()]


def test_a_step_is_asked_advanced_and_told_and_comes_to_what_a_step_comes_to():
    runs = [looking(), start("ftjob-b", method={"queries": 3}), start("ftjob-c", seed=2)]
    whole = cohort.step(runs, LinearScorer())
    batch = Batch([ask(run) for run in runs], Waved())
    tokens = waves = 0
    with pytest.raises(ValueError, match="still to be scored"):
        batch.told()
    while not batch.done:
        assert batch.tokens > 0
        tokens += batch.advance()
        waves += 1
    assert waves == (1 + 2) + (1 + 6) + (1 + 2) + 3  # evaluations, pairs, and the second look of one
    stepped = list(batch.told().values())
    for (run, result), (expected, its_result) in zip(stepped, whole, strict=True):
        assert run.params.tobytes() == expected.params.tobytes()
        assert result == its_result
    assert tokens == sum(result.tokens + result.evaluation.tokens for _, result in stepped)


def test_two_batches_that_take_turns_come_to_what_each_comes_to_alone():
    one, other = [start("ftjob-a"), looking()], [start("ftjob-b", seed=2, method={"queries": 4})]
    alone = [told(Batch([ask(run) for run in runs], Waved())) for runs in (one, other)]
    scorer = Waved()
    batches = [Batch([ask(run) for run in runs], scorer) for runs in (one, other)]
    while not all(batch.done for batch in batches):
        for batch in batches:
            batch.advance()
    assert [told(batch) for batch in batches] == alone


def test_who_gives_up_is_not_scored_any_more_and_the_others_are():
    runs = [start("ftjob-a", method={"queries": 5}), looking(), start("ftjob-c", seed=2)]
    alone = [told(Batch([ask(run)], Waved()))[0] for run in runs[1:]]
    scorer = Waved()
    batch = Batch([ask(run) for run in runs], scorer)
    batch.advance()
    batch.drop(0)
    assert told(batch) == alone
    assert list(batch.told()) == [1, 2]
    assert sum(trial.params is runs[0].params for trial in scorer.trials) == 1
    assert scorer.calls == 1 + (1 + 2) + (1 + 2) + 3


def test_a_batch_that_nobody_is_left_in_is_done():
    batch = Batch([ask(start("ftjob-a")), ask(start("ftjob-b"))], Waved())
    batch.advance()
    for number in (0, 1, 1):
        batch.drop(number)
    assert batch.done
    assert batch.told() == {}


def test_the_last_to_be_waited_for_gives_up_and_the_others_go_on_to_their_next_phase():
    two, dear = looking(), start("ftjob-b", method={"queries": 5})
    alone = told(Batch([ask(two)], Waved()))
    batch = Batch([ask(two), ask(dear)], Waved())
    for _ in range(1 + 2 + 1):  # all of the first, and one trial of the other
        batch.advance()
    batch.drop(1)
    assert not batch.done  # its second look is still to be scored
    assert told(batch) == alone


def test_to_give_a_step_up_leaves_the_run_as_it_was():
    run = start("ftjob-a")
    before = run.params.tobytes(), repr(run.state)
    batch = Batch([ask(run)], Waved())
    batch.advance()
    del batch
    assert (run.params.tobytes(), repr(run.state)) == before
    assert told(Batch([ask(run)], Waved())) == told(Batch([ask(replace(run))], Waved()))
