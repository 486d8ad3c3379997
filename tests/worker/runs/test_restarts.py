"""Runs that diverge: stopped, or gone back to their best step at half the rate; replayed to the bit."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest

from db.contract.history import History, Restart
from tests.worker.linear import BASE, LinearScorer, dataset, spec
from worker.adapters.snapshots import Prefix, Snapshots
from worker.runs import cohort, rebuilding
from worker.runs.divergence import recalled
from worker.runs.run import NONFINITE_LIMIT, Run, start

METHODS = [
    {"learning_rate": 6.0, "eps": 0.1},
    {"learning_rate": 1.0, "eps": 0.1, "optimizer": "adam"},
    {"learning_rate": 3.0, "eps": 0.1, "optimizer": "momentum"},
    {"name": "lozo", "window_rank": 2, "nu": 7, "learning_rate": 10.0, "eps": 0.5},
    {"name": "lozo", "window_rank": 2, "nu": 20, "learning_rate": 10.0, "eps": 1.0, "optimizer": "momentum"},
    {"name": "subzero", "window_rank": 2, "nu": 7, "learning_rate": 10.0, "eps": 0.5},
    {"name": "zo_muon", "window_rank": 2, "nu": 7, "learning_rate": 10.0, "eps": 1.0, "queries": 1},
    {"name": "sparse_mezo", "density": 0.5, "mask_every": 7, "learning_rate": 6.0, "eps": 0.1},
    {"name": "dizo", "project_every": 4, "project_pairs": 1, "learning_rate": 6.0, "eps": 0.1},
    {"name": "svrg", "anchor_every": 4, "anchor_rows": 30, "learning_rate": 3.0, "eps": 0.1},
]


def begin(**changes: object) -> Run:
    changes = {"steps": 60, "eval_every": 5, "eval_rows": 30, "batch_size": 4, **changes}
    return start("ftjob-a", spec(**changes), BASE, dataset(0))


def finish(run: Run, scorer: LinearScorer) -> tuple[list[Run], History, list[cohort.Evaluation]]:
    """The run after each step, its history and its evaluations."""
    runs, losses, heard = [run], [], []
    while not run.done:
        ((run, result),) = cohort.step([run], scorer)
        heard += [result.evaluation] if result.evaluation else []
        if result.losses is not None:
            losses.append(result.losses)
            runs.append(run)
    return runs, History(run.spec, losses, run.watch.restarts), heard


def same(found, wanted) -> bool:
    """Equal to the bit, adapter and state."""
    return found.params.tobytes() == wanted.params.tobytes() and bits(found.state) == bits(wanted.state)


def bits(state) -> list[object]:
    """Every field, its arrays as their bytes."""
    kept = [getattr(state, field.name) for field in fields(state)]
    return [[getattr(x, "tobytes", lambda x=x: x)() for x in v] if isinstance(v, tuple) else v for v in kept]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: "-".join(map(str, m.values())))
def test_a_run_with_restarts_replays_to_the_bit_from_anywhere(tmp_path, method):
    runs, history, _ = finish(begin(on_divergence="restart", max_restarts=3, method=method), LinearScorer())
    assert history.restarts, "it diverges"
    assert [r.at for r in history.restarts] == sorted({r.at for r in history.restarts})
    snapshots = Snapshots(tmp_path)
    for steps, run in enumerate(runs):
        part = history.upto(steps)
        assert part.restarts == run.watch.restarts
        assert same(rebuilding.rebuild(part, BASE), run.point), steps
    for steps in range(0, len(runs), 7):
        taken = history.upto(steps)
        prefix = Prefix(history.spec, taken.losses, taken.restarts).hex()
        snapshots.write("ftjob-a", runs[steps].point, prefix)
        found = snapshots.newest("ftjob-a", history.spec, history.losses, type(runs[0].state), history.restarts)
        assert same(rebuilding.rebuild(history, BASE, found), runs[-1].point)


def test_a_snapshot_behind_which_the_run_went_back_is_of_no_use(tmp_path):
    runs, history, _ = finish(begin(on_divergence="restart", method=METHODS[0]), LinearScorer())
    again = history.restarts[0]
    assert again.origin + 1 < again.at
    snapshots = Snapshots(tmp_path)
    between = history.upto(again.at - 1)
    snapshots.write("ftjob-a", runs[between.step].point, Prefix(history.spec, between.losses, between.restarts).hex())
    of = ("ftjob-a", history.spec, history.losses, type(runs[0].state))
    assert snapshots.newest(*of, history.restarts) is None
    assert snapshots.newest(*of[:2], between.losses, of[3], between.restarts) is not None
    with pytest.raises(ValueError, match="behind"):
        rebuilding.rebuild(history, BASE, runs[between.step].point)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: "-".join(map(str, m.values())))
def test_whoever_takes_over_decides_the_same(method):
    """From every step on: what was committed up to there, and nothing else, leads to the same restarts and bits."""
    runs, history, heard = finish(begin(on_divergence="restart", max_restarts=2, method=method), LinearScorer())
    first = runs[0]
    assert history.restarts
    for steps in range(1, len(runs), 8):
        part, told = history.upto(steps), [e for e in heard if e.step < steps]
        watch = recalled(first.spec, told, part.restarts, steps)
        assert watch == runs[steps].watch
        best = min((e.loss, e.step) for e in told)
        points = rebuilding.points(part, BASE, {steps, best[1]})
        taken = replace(first, watch=watch).at(points[steps], (best[1], best[0]), len(part.restarts))
        taken = replace(taken, best_point=points[best[1]])
        assert (taken.best, taken.stopped) == (runs[steps].best, runs[steps].stopped)
        after, _, _ = finish(taken, LinearScorer())
        assert after[-1].watch.restarts == history.restarts
        assert same(after[-1].point, runs[-1].point)


def test_each_restart_halves_the_rate_and_keeps_the_noise_fresh():
    scorer = LinearScorer()
    run = begin(on_divergence="restart", method=METHODS[0])
    while not run.watch.restarts:
        before = run
        ((run, _),) = cohort.step([run], scorer)
    (restart,) = run.watch.restarts
    assert run.method.schedule.peak == before.method.schedule.peak / 2
    assert (run.step, run.state.back) == (restart.at, restart.at - restart.origin)
    assert run.params.tobytes() == run.best_point.params.tobytes()
    origin = run.best_point
    seen = {(p.params - origin.params).tobytes() for p in run.method.ask(run.params, run.state, ())}
    assert not seen & {(p.params - origin.params).tobytes() for p in run.method.ask(origin.params, origin.state, ())}


def test_the_window_of_a_restarted_lozo_is_the_one_it_went_back_to():
    """Nothing of the rank is lost: no window is opened for the steps that were taken back."""
    method = METHODS[3]
    runs, history, _ = finish(begin(on_divergence="restart", method=method), LinearScorer())
    assert history.restarts
    for restart in history.restarts:
        state = runs[restart.at].state
        assert state.windows == runs[restart.origin].state.windows
        after = runs[min(restart.at + 1, len(runs) - 1)].state
        assert after.windows - state.windows <= 1


def test_a_run_that_diverges_stops_with_its_best_and_takes_no_further_step():
    runs, history, heard = finish(begin(on_divergence="stop", method=METHODS[0]), LinearScorer())
    run = runs[-1]
    assert (run.stopped, heard[-1].diverged, heard[-1].newly) == ("diverged", True, True)
    assert run.step == heard[-1].step + 1 < run.spec.steps
    assert run.best[1] == min(e.loss for e in heard)
    assert run.best_point.params.tobytes() == runs[run.best[0]].params.tobytes()
    assert cohort.ask(run).trials == ()
    assert history.restarts == ()


def test_a_run_that_may_not_restart_any_more_stops():
    runs, history, _ = finish(begin(on_divergence="restart", max_restarts=0, method=METHODS[0]), LinearScorer())
    assert (runs[-1].stopped, history.restarts) == ("diverged", ())


def test_a_run_told_to_continue_does_and_says_that_it_has_diverged_once():
    runs, _, heard = finish(begin(on_divergence="continue", method=METHODS[0]), LinearScorer())
    assert (runs[-1].step, runs[-1].stopped) == (60, None)
    assert any(e.newly for e in heard)
    alike = [(a.diverged, b.diverged, b.newly) for a, b in pairwise(heard)]
    assert all(newly == (now and not before) for before, now, newly in alike)


def test_patience_stops_after_as_many_evaluations_without_a_better_one():
    runs, _, heard = finish(begin(patience=2, method={"learning_rate": 1e-9}, seed=3, eval_every=4), LinearScorer())
    run = runs[-1]
    assert run.stopped == "patience"
    assert heard[-1].step == run.best[0] + 2 * 4


def test_a_good_run_is_left_alone():
    wanted, _, _ = finish(begin(method={"learning_rate": 0.1}, batch_size=20), LinearScorer())
    found, _, heard = finish(begin(method={"learning_rate": 0.1}, batch_size=20, on_divergence="stop"), LinearScorer())
    assert not any(e.diverged for e in heard)
    assert (found[-1].step, found[-1].stopped) == (60, None)
    assert found[-1].params.tobytes() == wanted[-1].params.tobytes()


def test_losses_that_are_not_finite_any_more_are_a_reason_to_restart():
    class Broken(LinearScorer):
        """Nothing is finite from the 8th call on, until the run has gone back."""

        def score(self, trials):
            self._broken_from = 8 if self.calls < 7 + NONFINITE_LIMIT else None
            return super().score(trials)

    run = begin(on_divergence="restart", eval_every=50, method={"learning_rate": 0.3})
    runs, history, _ = finish(run, Broken())
    assert history.restarts == (Restart(7 + NONFINITE_LIMIT, 0),)
    assert runs[-1].failed is None
    assert same(rebuilding.rebuild(history, BASE), runs[-1].point)
    stopped, _, _ = finish(begin(on_divergence="stop", eval_every=50), Broken())
    assert stopped[-1].failed


def test_a_restart_lies_in_the_history_up_to_its_step_and_not_before():
    history = History(spec(), [(1.0, 2.0)] * 9, (Restart(3, 0), Restart(7, 5)))
    assert [len(history.upto(n).restarts) for n in (2, 3, 6, 7)] == [0, 1, 1, 2]


def test_the_hash_of_a_journal_tells_restarts_apart():
    losses = [(1.0, 2.0)] * 9
    some = [(), (Restart(3, 0),), (Restart(4, 0),), (Restart(4, 1),), (Restart(3, 0), Restart(4, 0))]
    assert len({Prefix(spec(), losses, x).hex() for x in some}) == len(some)
    running = Prefix(spec(), losses[:3])
    running.back(Restart(3, 0))
    for row in losses[3:]:
        running.add(np.asarray(row))
    assert running.hex() == Prefix(spec(), losses, (Restart(3, 0),)).hex()
