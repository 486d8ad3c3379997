"""Waves are the unit of preemption: beside a wide step others take theirs, it hears its tenant, and nothing is lost."""

from collections import Counter
from collections.abc import Sequence

import pytest
from sqlalchemy import select

from db.contract import methods
from db.tables import Job, JournalStep, Tenant
from tests.worker.slices.doubles import STEPS, counted
from worker import metrics
from worker.slices.loop import run_slice
from worker.slices.wide import under_way
from worker.types import Trial

WAVE = 32  # tokens: one trial's
PROBES = 40
WIDE = {
    "method": methods.settings(name="mezo", estimator="one_sided", queries=PROBES - 1, eps=1e-2, learning_rate=1e-3)
}


@pytest.fixture
def waved(context):
    """A context whose waves are short, so that a step of PROBES probes takes as many."""
    context.settings = context.settings.model_copy(update={"max_tokens": WAVE})
    context.scorer.wave = WAVE
    return context


@pytest.fixture
def waves(waved) -> list[int]:
    """The rank of every wave scored; a wave of several is -1."""
    seen: list[int] = []

    def sees(trials: Sequence[Trial]) -> None:
        ranks = {t.layout.rank for t in trials}
        seen.append(ranks.pop() if len(ranks) == 1 else -1)

    waved.scorer.sees = sees
    return seen


def state(row, job: str) -> tuple[str, int]:
    return row(job).state, row(job).step


def journalled(factory, job: str) -> dict[int, list[float]]:
    with factory.begin() as session:
        found = select(JournalStep.step, JournalStep.losses).where(JournalStep.job_id == job)
        return {step: list(losses) for step, losses in session.execute(found)}


def then(context, waves: list[int], when, act) -> None:
    """Do `act` before the wave at which `when(ranks so far)` holds first."""
    inner, done = context.scorer.sees, []

    def sees(trials: Sequence[Trial]) -> None:
        if not done and when(waves):
            done.append(True)
            act()
        inner(trials)

    context.scorer.sees = sees


def test_a_small_job_takes_its_steps_while_a_wide_step_is_under_way(waved, waves, submit, row):
    wide, small = submit(2, steps=1, **WIDE), submit(3)
    assert run_slice(waved) is False
    assert [state(row, wide), state(row, small)] == [("succeeded", 1), ("succeeded", STEPS)]
    assert waves.count(2) == PROBES
    last = max(n for n, rank in enumerate(waves) if rank == 3)
    assert waves[:last].count(2) < PROBES / 2, "the small one's last step is long taken when the wide one's is complete"


def test_a_wide_step_comes_to_what_it_comes_to_alone(waved, waves, submit, row, factory):
    alone = submit(2, steps=2, seed=5, **WIDE)
    run_slice(waved)
    beside = submit(2, steps=2, seed=5, **WIDE)
    submit(3)
    run_slice(waved)
    assert journalled(factory, alone) == journalled(factory, beside)
    assert len(journalled(factory, alone)) == 2


@pytest.mark.parametrize(("wish", "outcome"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_wish_is_obeyed_between_two_waves_and_the_step_leaves_nothing(
    waved, waves, submit, row, factory, wish, outcome
):
    wide, small = submit(2, steps=1, **WIDE), submit(3)

    def wished() -> None:
        with factory.begin() as session:
            session.get_one(Job, wide).wish = wish
        waved.heartbeat.look_for_wishes()

    then(waved, waves, lambda seen: seen.count(2) == 4, wished)
    run_slice(waved)
    assert waves.count(2) <= 6
    assert state(row, wide) == (outcome, 0)
    assert journalled(factory, wide) == {}
    assert row(wide).scored_tokens == 0
    assert state(row, small) == ("succeeded", STEPS)


def test_a_wish_is_heard_between_the_waves_of_steps_that_share_them(waved, waves, submit, row, factory):
    """Steps too short to be wide: the one whose tenant cancels is dropped from the batch, the other keeps its own."""
    waved.settings = waved.settings.model_copy(update={"max_tokens": 1 << 20})  # none is wide; the waves stay short
    gone, stays = submit(2, **WIDE), submit(3, steps=2, **WIDE)

    def wished() -> None:
        with factory.begin() as session:
            session.get_one(Job, gone).wish = "cancel"
        waved.heartbeat.look_for_wishes()

    then(waved, waves, lambda seen: len(seen) == 3, wished)
    run_slice(waved)
    assert state(row, gone) == ("cancelled", 0)
    assert waves.count(2) < PROBES / 4
    assert state(row, stays) == ("succeeded", 2)


def test_a_drain_is_heard_between_two_waves_and_costs_the_step_alone(waved, waves, submit, row, factory):
    wide, small = submit(2, **WIDE), submit(3, steps=100)
    then(waved, waves, lambda seen: seen.count(2) == 4, waved.heartbeat.draining.set)
    assert run_slice(waved) is False
    assert waves.count(2) <= 5
    assert state(row, wide) == ("queued", 0)
    assert state(row, small)[0] == "queued"
    assert len(journalled(factory, small)) == row(small).step > 0


def test_a_lost_lease_voids_the_step_under_way(waved, waves, submit, row, factory):
    wide = submit(2, steps=1, **WIDE)

    def lost() -> None:
        waved.heartbeat._lost.add(wide)

    then(waved, waves, lambda seen: len(seen) == 4, lost)
    run_slice(waved)
    assert waves.count(2) <= 5
    assert journalled(factory, wide) == {}
    assert wide not in waved.residents


def test_a_slice_keeps_its_length_and_the_step_goes_on_in_the_next(waved, waves, submit, row, factory):
    """Slices of no length: one turn each. The wide step is complete after as many as it has waves, and none twice."""
    waved.settings = waved.settings.model_copy(update={"slice_seconds": 0.0})
    wide = submit(2, steps=1, seed=5, **WIDE)
    slices = 0
    while state(row, wide)[0] != "succeeded":
        before = len(waves)
        run_slice(waved)
        assert len(waves) - before <= 1
        slices += 1
    assert slices >= PROBES
    assert waves.count(2) == PROBES, "no wave is scored twice"
    waved.settings = waved.settings.model_copy(update={"slice_seconds": 1e6})
    whole = submit(2, steps=1, seed=5, **WIDE)
    run_slice(waved)
    assert journalled(factory, whole) == journalled(factory, wide)


def test_the_time_that_a_wave_stands_for_serving_is_no_part_of_a_slice(waved, waves, submit, row):
    """As though every wave stood for an hour: the slice has its length in its own time, and the step is completed."""
    stood = [0.0]

    def stands(_: Sequence[Trial]) -> None:
        waves.append(2)
        stood[0] += 3600.0

    waved.scorer.sees = stands
    waved.progress.stood = lambda: stood[0]
    waved.settings = waved.settings.model_copy(update={"slice_seconds": 0.0})
    wide = submit(2, steps=1, seed=5, **WIDE)
    run_slice(waved)
    assert state(row, wide)[0] == "succeeded"
    assert len(waves) == PROBES


def test_a_tenant_who_comes_while_wide_steps_fill_the_cohort_steps_in_the_slice_after_next(waved, waves, submit, row):
    waved.settings = waved.settings.model_copy(update={"slice_seconds": 0.0, "cohort": 2})
    wides = [submit(2, **WIDE) for _ in range(4)]
    for _ in range(8):
        run_slice(waved)
    small = submit(3)
    for _ in range(2):
        run_slice(waved)
    assert row(small).step >= 1
    assert all(row(wide).step == 0 for wide in wides)
    for _ in range(400):
        run_slice(waved)
        if all(row(wide).step for wide in wides):
            break
    assert all(row(wide).step for wide in wides), "and none of the wide ones starves"


def test_as_many_wide_steps_are_under_way_as_step_together_and_no_wave_of_them_is_wasted(waved, waves, submit, row):
    waved.settings = waved.settings.model_copy(update={"slice_seconds": 0.0, "cohort": 2})
    wides = [submit(2, steps=1, **WIDE) for _ in range(4)]
    while not all(row(wide).state == "succeeded" for wide in wides):
        run_slice(waved)
        assert under_way(waved.residents.values()) <= 2
    assert waves.count(2) == 4 * PROBES


def test_a_job_that_waits_here_no_more_makes_room_for_another(waved, waves, submit, row, factory):
    waved.settings = waved.settings.model_copy(update={"slice_seconds": 0.0, "cohort": 1})
    gone = submit(2, **WIDE)
    run_slice(waved)
    assert under_way(waved.residents.values()) == 1
    with factory.begin() as session:
        session.get_one(Job, gone).state = "paused"
    wide = submit(3, steps=1, **WIDE)
    while row(wide).state != "succeeded":
        run_slice(waved)
    assert waves.count(3) == PROBES


def test_an_engine_that_breaks_in_a_wide_step_leaves_the_steps_of_others(waved, waves, submit, row, factory):
    wide, small = submit(2, steps=1, **WIDE), submit(3)

    def broken() -> None:
        raise ValueError("refused")

    then(waved, waves, lambda seen: seen.count(2) == 3, broken)
    run_slice(waved)
    assert journalled(factory, wide) == {}
    assert len(journalled(factory, small)) == row(small).step > 0
    while run_slice(waved):
        pass
    assert [state(row, wide), state(row, small)] == [("succeeded", 1), ("succeeded", STEPS)]


def test_weights_of_one_two_and_four_get_their_shares_inside_a_slice(context, submit, row, factory):
    """Until the heaviest is told to stop: within two percent of a seventh, two sevenths and four."""
    jobs = {weight: submit(rank, steps=100_000) for rank, weight in ((2, 1), (3, 2), (4, 4))}
    tokens, shares = Counter[int](), {}
    with factory.begin() as session:
        for weight, job in jobs.items():
            session.get_one(Tenant, session.get_one(Job, job).tenant_id).weight = weight

    def sees(trials: Sequence[Trial]) -> None:
        for trial in trials:
            tokens[trial.layout.rank] += trial.tokens
        if tokens.total() > 60_000 and not shares:
            shares.update({rank: count / tokens.total() for rank, count in tokens.items()})
            context.heartbeat.draining.set()

    context.scorer.sees = sees
    run_slice(context)
    assert shares == pytest.approx({2: 1 / 7, 3: 2 / 7, 4: 4 / 7}, rel=0.02)


def test_a_step_counts_once_in_the_metrics_however_many_turns_it_takes(waved, waves, submit):
    before = counted(metrics.step_seconds.labels(waved.model))
    submit(2, steps=2, **WIDE)
    run_slice(waved)
    assert counted(metrics.step_seconds.labels(waved.model)) - before == 2


def test_a_suspect_in_the_middle_of_a_wide_step_keeps_nobody_waiting_for_it(waved, waves, submit, row, factory):
    waved.settings = waved.settings.model_copy(update={"slice_seconds": 0.0})
    wide, small = submit(2, steps=1, **WIDE), submit(3)
    with factory.begin() as session:
        session.get_one(Job, wide).suspect = True
    while row(small).state != "succeeded":
        run_slice(waved)
    assert (row(wide).step, row(wide).suspect) == (0, True)
    assert -1 not in waves, "and it is still alone"
    while row(wide).state != "succeeded":
        run_slice(waved)
    assert waves.count(2) == PROBES
