"""The storm of a seed: the same on every machine, bounded, and in an order that makes sense."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos import faults
from tests.chaos.plan import FAULTS, OF_A_WORKER, STEERS, Plan, plan

MODELS = {"engine": 1, "plain": 3}
SIZES = st.fixed_dictionaries({"tenants": st.integers(1, 20), "jobs": st.integers(1, 60), "faults": st.integers(0, 80)})


def drawn(seed: int, **sizes: int) -> Plan:
    return plan(seed, **{"tenants": 6, "jobs": 14, "faults": 16} | sizes, models=MODELS)


@given(st.integers(0, 2**32), SIZES)
def test_a_seed_is_one_storm_of_the_size_that_was_asked_for(seed, sizes):
    made = drawn(seed, **sizes)
    assert made == drawn(seed, **sizes)
    kinds = Counter(event.what for event in made.events)
    assert (len(made.submissions), kinds["submit"], kinds["fault"]) == (sizes["jobs"], sizes["jobs"], sizes["faults"])
    assert all(0 <= event.at < 1 for event in made.events)
    assert list(made.events) == sorted(made.events, key=lambda event: event.at)
    assert all(1 <= s.times <= 3 and s.steps >= 5 and s.tenant < sizes["tenants"] for s in made.submissions)


@given(st.integers(0, 2**32))
def test_no_job_is_steered_before_it_is_asked_for_nor_left_paused(seed):
    made = drawn(seed, jobs=40)
    begun = {event.who: event.at for event in made.events if event.what == "submit"}
    assert all(event.at >= begun[event.who] for event in made.events if event.what in (*STEERS, "resume"))
    paused = {event.who: event.at for event in made.events if event.what == "pause"}
    resumed = {event.who: event.at for event in made.events if event.what == "resume"}
    assert set(paused) == set(resumed)
    assert all(resumed[job] >= at for job, at in paused.items())


def test_other_seeds_are_other_storms():
    assert len({drawn(seed) for seed in range(20)}) == 20


def test_every_kind_of_fault_comes_where_there_is_room_and_can_be_done():
    assert {event.how for event in drawn(3).events if event.what == "fault"} == set(FAULTS) == set(faults.DO)


@given(st.integers(0, 2**32))
def test_faults_meet_workers_that_are_there_and_rarely_a_costly_one(seed):
    made = drawn(seed, faults=200)
    who = [event for event in made.events if event.what == "fault"]
    assert all(0 <= event.who < sum(MODELS.values()) for event in who)
    costly = [event for event in who if event.who < MODELS["engine"]]
    assert all(event.how in OF_A_WORKER for event in costly)
    assert len(costly) < len(who) / 8


@pytest.mark.parametrize("jobs", [10, 200])
def test_every_tenant_and_every_model_has_jobs_and_some_are_wild(jobs):
    made = drawn(1, jobs=jobs, tenants=6)
    assert {s.tenant for s in made.submissions} == set(range(6))
    assert {s.model for s in made.submissions} == set(MODELS)
    assert sum(s.wild for s in made.submissions) == jobs // 10
