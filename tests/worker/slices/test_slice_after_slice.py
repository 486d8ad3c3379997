"""Slice after slice, by the scheduler alone: shares in every long window, waits, no back-pay, no place left empty.

The clock and the charges are done here as `db/worker/shares.py` and `db/usage.py` do them in SQL.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.overview import jain
from worker.slices.scheduler import burst, pick

T0 = datetime(2026, 1, 1, tzinfo=UTC)
PLACES, QUANTUM = 8, 100.0


@dataclass(frozen=True)
class Job:
    job_id: str
    tenant_id: str
    weight: float
    created_at: datetime
    virtual: float
    priority: int = 0


@dataclass
class Model:
    """A model's queue. `queued` are jobs by tenant, endless where their steps are not counted; `tokens` says what a run
    of a tenant scores in a slice."""

    weights: dict[str, float]
    tokens: Callable[[str], float] = lambda _: QUANTUM
    places: int = PLACES
    queued: dict[str, list[str]] = field(default_factory=dict)
    finish: dict[str, float] = field(default_factory=dict)
    clock: float = 0.0
    quantum: float = QUANTUM
    scored: Counter = field(default_factory=Counter)
    slices: list[Counter] = field(default_factory=list)

    def come(self, tenant: str, jobs: int) -> None:
        """So many more jobs. A tenant without any had its share pruned, or has been ahead of the clock."""
        if not self.queued.get(tenant):
            self.finish[tenant] = max(self.finish.get(tenant, 0.0), self.clock)
        mine = self.queued.setdefault(tenant, [])
        mine += [f"{tenant}-{len(mine) + n}" for n in range(jobs)]

    def go(self, tenant: str) -> None:
        self.queued[tenant] = []

    def slice(self) -> Counter:
        """One slice; the tokens of each tenant."""
        waiting = [
            Job(job, tenant, self.weights[tenant], T0 + timedelta(seconds=n), self.finish[tenant] - self.clock)
            for tenant, mine in self.queued.items()
            for n, job in enumerate(mine[: self.places])
        ]
        picked = pick(waiting, self.places, self.quantum)
        assert len(picked) == min(self.places, len(waiting)), "work-conserving"
        most, before = burst(self.places, self.quantum), self.clock
        for job in picked:
            start = max(self.finish[job.tenant_id], before - most / job.weight)
            self.finish[job.tenant_id] = start
            self.clock = max(self.clock, start)
        now: Counter = Counter()
        for job in picked:
            spent = self.tokens(job.tenant_id)
            now[job.tenant_id] += spent
            self.finish[job.tenant_id] += spent / job.weight
            self.quantum = max(1.0, 0.8 * self.quantum + 0.2 * spent)
        self.slices.append(now)
        self.scored.update(now)
        return now

    def shares(self) -> dict[str, float]:
        total = sum(self.scored.values())
        return {tenant: self.scored[tenant] / total for tenant in self.weights}


@pytest.mark.parametrize("places", [1, 2, 3, 8])
def test_weights_of_one_two_and_four_get_their_shares_within_two_percent(places):
    rng = random.Random(places)
    model = Model({"a": 1.0, "b": 2.0, "c": 4.0}, lambda _: rng.uniform(50, 150), places)
    for tenant in model.weights:
        model.come(tenant, 1000)
    for _ in range(500):
        model.slice()
    assert model.shares() == pytest.approx({"a": 1 / 7, "b": 2 / 7, "c": 4 / 7}, rel=0.02)


def test_twenty_equal_tenants_with_unequal_jobs_are_even():
    rng = random.Random(7)
    size = {f"t{n}": rng.choice([20.0, 60.0, 100.0, 250.0, 600.0]) for n in range(20)}
    model = Model(dict.fromkeys(size, 1.0), lambda tenant: size[tenant] * rng.uniform(0.8, 1.2))
    for n, tenant in enumerate(size):
        model.come(tenant, 8 + 50 * n)
    for _ in range(600):
        model.slice()
    assert jain([model.scored[tenant] for tenant in size]) >= 0.99


@pytest.mark.parametrize("behind", [1, 20])
def test_a_small_tenant_behind_a_thousand_queued_jobs_waits_for_two_slices_at_most(behind):
    """Also where each of twenty others has a thousand, of which eight step at a time."""
    for at in range(30):
        others = [f"t{n}" for n in range(behind)]
        rng = random.Random(at)
        model = Model({**dict.fromkeys(others, 1.0), "small": 1.0}, lambda _, rng=rng: rng.uniform(20, 300))
        for tenant in others:
            model.come(tenant, 1000)
        for _ in range(at):
            model.slice()
        model.come("small", 1)
        assert any(model.slice()["small"] for _ in range(2)), f"after {at} slices"


def test_a_tenant_that_returns_is_not_paid_for_its_absence():
    model = Model({"a": 1.0, "b": 1.0})
    model.come("a", 1000)
    model.come("b", 1000)
    for _ in range(20):
        model.slice()
    model.go("b")
    for _ in range(200):
        assert set(model.slice()) == {"a"}
    model.come("b", 1000)
    before = model.scored.copy()
    for n in range(1, 50):
        model.slice()
        gained = {tenant: model.scored[tenant] - before[tenant] for tenant in "ab"}
        assert abs(gained["a"] - gained["b"]) <= PLACES * QUANTUM, f"{n} slices after its return"


def test_a_tenant_that_had_one_job_only_is_not_paid_for_the_places_it_left():
    model = Model({"many": 1.0, "one": 1.0})
    model.come("many", 1000)
    model.come("one", 1)
    for _ in range(200):
        assert set(model.slice()) == {"many", "one"}
    model.come("one", 1000)
    before = model.scored.copy()
    for _ in range(50):
        model.slice()
        gained = {tenant: model.scored[tenant] - before[tenant] for tenant in model.weights}
        assert abs(gained["many"] - gained["one"]) <= 2 * PLACES * QUANTUM


def test_nobody_starves():
    """Wide runs, small tenants, light weights and newcomers at every slice: each tenant's jobs go on all the time."""
    rng = random.Random(3)
    weights = {"light": 0.2, "wide": 1.0, "small": 1.0, "heavy": 8.0, **{f"new{n}": 1.0 for n in range(200)}}
    model = Model(weights, lambda t: 2000.0 if t == "wide" else rng.uniform(10, 200))
    for tenant, count in (("light", 30), ("wide", 30), ("small", 1), ("heavy", 1000)):
        model.come(tenant, count)
    served = defaultdict(list)
    for n in range(200):
        model.come(f"new{n}", 2)
        for tenant in model.slice():
            served[tenant].append(n)
            if tenant.startswith("new"):
                model.queued[tenant].pop()
    for tenant, longest in (("light", 80), ("wide", 80), ("small", 20), ("heavy", 4)):
        gaps = [b - a for a, b in zip([0, *served[tenant]], [*served[tenant], 199], strict=True)]
        assert max(gaps) <= longest, tenant


TENANTS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.25, 8.0), min_size=2)
SIZES = st.lists(st.floats(50.0, 200.0), min_size=7, max_size=7)


@given(TENANTS, st.integers(1, 8), SIZES, st.integers(0, 2**32))
def test_in_any_window_no_two_tenants_are_further_apart_than_a_slice_each(weights, places, sizes, seed):
    """Goyal's bound, with a slice for his packet: tokens over weights of tenants that always have jobs differ by one
    slice of each at most, in every window."""
    rng = random.Random(seed)
    model = Model(weights, lambda _: rng.choice(sizes), places)
    for tenant in weights:
        model.come(tenant, 1000)
    for _ in range(60):
        model.slice()
    most = places * max(sizes)
    for one, other in combinations(weights, 2):
        ahead, low, high = 0.0, 0.0, 0.0
        for now in model.slices:  # the widest window is from the lowest to the highest point, or back
            ahead += now[one] / weights[one] - now[other] / weights[other]
            low, high = min(low, ahead), max(high, ahead)
        bound = most / weights[one] + most / weights[other]
        assert high - low <= bound * (1 + 1e-9)  # sums of floats, which may meet it exactly


@given(TENANTS, st.integers(0, 2**32))
def test_the_same_history_gives_the_same_slices(weights, seed):
    def history() -> list[Counter]:
        rng = random.Random(seed)
        model = Model(weights, lambda _: rng.uniform(1, 500))
        for tenant in weights:
            model.come(tenant, 30)
        return [model.slice() for _ in range(20)]

    assert history() == history()
