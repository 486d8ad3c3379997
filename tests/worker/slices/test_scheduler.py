"""Fair share: turns, weights, age, and no gain from many jobs or from the order of the list."""

import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.slices.scheduler import Length, burst, length, pick

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Job:
    job_id: str
    tenant_id: str
    weight: float = 1.0
    age: int = 0
    virtual: float = 0.0
    priority: int = 0

    @property
    def created_at(self) -> datetime:
        return T0 - timedelta(seconds=self.age)


def jobs(tenant: str, count: int, **about) -> list[Job]:
    return [Job(f"{tenant}{i}", tenant, age=100 - i, **about) for i in range(count)]


def test_tenants_take_turns_and_the_oldest_of_each_goes_first():
    picked = pick(jobs("a", 3) + jobs("b", 3), 4, quantum=10)
    assert [j.job_id for j in picked] == ["a0", "b0", "a1", "b1"]


def test_a_tenant_with_a_hundred_jobs_does_not_delay_another():
    picked = pick([*jobs("a", 100), Job("b0", "b", age=0)], 2, quantum=10)
    assert {j.tenant_id for j in picked} == {"a", "b"}


def test_twice_the_weight_is_twice_the_places():
    picked = pick(jobs("a", 20, weight=2.0) + jobs("b", 20), 9, quantum=10)
    assert Counter(j.tenant_id for j in picked) == {"a": 6, "b": 3}


def test_who_has_scored_more_waits():
    picked = pick(jobs("a", 5, virtual=1000) + jobs("b", 5), 5, quantum=10)
    assert {j.tenant_id for j in picked} == {"b"}


def test_places_are_not_left_empty():
    picked = pick(jobs("a", 2, virtual=10**9) + jobs("b", 1), 8, quantum=10)
    assert sorted(j.job_id for j in picked) == ["a0", "a1", "b0"]


def test_of_a_tenants_jobs_priority_goes_before_age():
    waiting = [Job("old", "a", age=9), Job("low", "a", age=99, priority=-1), Job("high", "a", priority=1)]
    assert [j.job_id for j in pick(waiting, 3, quantum=10)] == ["high", "old", "low"]


def test_nobody_is_further_behind_the_clock_than_a_slice():
    waiting = [*jobs("later", 9, virtual=-1e9), *jobs("late", 9, virtual=-1e6), *jobs("now", 9)]
    assert Counter(j.tenant_id for j in pick(waiting, 4, quantum=10)) == {"later": 2, "late": 2}
    assert Counter(j.tenant_id for j in pick(waiting, 12, quantum=10))["now"] == 0
    assert burst(4, 10) == 40


def test_a_quantum_of_nothing_is_refused():
    with pytest.raises(ValueError, match="quantum"):
        pick([], 1, quantum=0)


WAITING = st.lists(
    st.builds(
        Job,
        job_id=st.uuids().map(str),
        tenant_id=st.sampled_from("abcd"),
        weight=st.just(1.0),
        age=st.integers(0, 1000),
        virtual=st.just(0.0),
    ),
    max_size=30,
    unique_by=lambda j: j.job_id,
)


@given(WAITING, st.integers(0, 12), st.randoms(use_true_random=False))
def test_the_answer_is_a_fair_subset_whatever_the_order(waiting: list[Job], limit: int, rng: random.Random):
    picked = pick(waiting, limit, quantum=7)
    assert len(picked) == len({j.job_id for j in picked}) == min(limit, len(waiting))
    shuffled = waiting[:]
    rng.shuffle(shuffled)
    assert pick(shuffled, limit, quantum=7) == picked
    had, left = Counter(j.tenant_id for j in picked), Counter(j.tenant_id for j in waiting)
    for tenant in left:  # equal tenants differ by one place at most, unless one has run out of jobs
        if had[tenant] < left[tenant]:
            assert had[tenant] >= max(had.values(), default=0) - 1


def test_a_probation_is_short_and_grows_with_deaths_to_no_more_than_a_slice():
    assert length(4.0, False, 9) == Length(4.0, 1)
    assert [length(4.0, True, deaths) for deaths in (0, 1, 2, 8)] == [
        Length(1.0, 1), Length(1.0, 1), Length(2.0, 2), Length(4.0, 8),
    ]  # fmt: skip
    assert 8 * length(4.0, True, 1).seconds <= 2 * 4.0


def test_a_slice_is_over_after_its_seconds_and_its_steps():
    assert [Length(2.0, 3).over(*x) for x in ((1.9, 9), (2.0, 2), (2.0, 3))] == [False, False, True]
