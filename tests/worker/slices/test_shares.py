"""Deficit round robin inside a slice: shares follow weights, nobody starves, nothing is idle, batches stay whole."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.slices.shares import Shares, turns


@dataclass(frozen=True)
class Run:
    job_id: str
    tenant_id: str
    weight: float = 1.0
    cost: int = 100


@dataclass
class Played:
    """`batches` as they were chosen, and after each the tokens scored for each tenant."""

    batches: list[list[Run]]
    scored: list[Counter[str]]


def play(runs: list[Run], batches: int, real=lambda run: run.cost) -> Played:
    """So many batches of runs that never end; `real` says what a turn has cost."""
    shares, scored, played = Shares(), Counter[str](), Played([], [])
    for _ in range(batches):
        chosen, shares = turns(runs, shares)
        for run in chosen:
            tokens = real(run)
            shares = shares.charged(run.tenant_id, tokens)
            scored[run.tenant_id] += tokens
        played.batches.append(chosen)
        played.scored.append(scored.copy())
    return played


def share(scored: Counter[str]) -> dict[str, float]:
    return {tenant: tokens / scored.total() for tenant, tokens in scored.items()}


def test_weights_of_one_two_and_four_get_their_shares_within_two_percent():
    runs = [Run(t, t, weight) for t, weight in (("a", 1), ("b", 2), ("c", 4))]
    after = share(play(runs, 400).scored[-1])
    assert after == pytest.approx({"a": 1 / 7, "b": 2 / 7, "c": 4 / 7}, rel=0.02)


def test_one_job_beside_seven_of_another_tenant_gets_half():
    runs = [Run("a", "a"), *(Run(f"b{i}", "b") for i in range(7))]
    played = play(runs, 200)
    assert share(played.scored[-1]) == pytest.approx({"a": 0.5, "b": 0.5}, rel=0.02)
    steps = Counter(run.job_id for batch in played.batches for run in batch)
    own = [steps[f"b{i}"] for i in range(7)]
    assert max(own) - min(own) <= 1  # among themselves in turn


def test_runs_of_equal_cost_of_equal_tenants_step_in_one_batch():
    runs = [Run(f"{t}", t) for t in "abcdefgh"]
    assert {len(batch) for batch in play(runs, 50).batches} == {8}


def test_runs_of_about_equal_steps_hardly_ever_part():
    """Costs of every step differ by up to a fifth either way, and nineteen places of twenty are taken."""
    rng = random.Random(1)
    runs = [Run(t, t) for t in "abcdefgh"]
    played = play(runs, 400, lambda _: rng.randint(80, 120))
    assert sum(map(len, played.batches)) >= 0.95 * 8 * 400
    spread = played.scored[-1].values()
    assert max(spread) - min(spread) <= 2 * 120


def test_a_run_of_cheap_steps_is_not_held_back_by_one_whose_wave_is_forty_times_as_dear():
    played = play([Run("wide", "a", cost=4000), Run("small", "b", cost=100)], 4000)
    assert share(played.scored[-1]) == pytest.approx({"a": 0.5, "b": 0.5}, rel=0.02)
    waited = [run.job_id for batch in played.batches for run in batch]
    assert "small" * 41 not in "".join(waited[1:])  # the wide one's waves come every forty steps


def test_what_is_not_known_goes_first_and_is_paid_for_afterwards():
    runs = [Run("a", "a", cost=0), Run("b", "b", cost=0)]
    chosen, shares = turns(runs, Shares())
    assert chosen == runs
    known = [Run("a", "a", cost=700), Run("b", "b", cost=70)]
    shares = shares.charged("a", 700).charged("b", 70)
    seen = Counter[str]()
    for _ in range(11):
        chosen, shares = turns(known, shares)
        for run in chosen:
            shares = shares.charged(run.tenant_id, run.cost)
            seen[run.job_id] += 1
    assert seen["a"] == 1
    assert seen["b"] == 11


def test_none_is_chosen_only_where_none_is_ready():
    assert turns([], Shares({"a": 5.0}, ("x",))) == ([], Shares())


RUNS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 5000)), min_size=1, max_size=10).flatmap(
    lambda made: st.fixed_dictionaries({t: st.sampled_from((0.5, 1.0, 2.0, 4.0)) for t in "abcd"}).map(
        lambda weights: [Run(f"{t}{i}", t, weights[t], cost) for i, (t, cost) in enumerate(made)]
    )
)


@given(RUNS, st.randoms(use_true_random=False))
def test_it_is_never_idle_and_the_order_of_the_list_decides_nothing(runs: list[Run], rng: random.Random):
    shares, other = Shares(), Shares()
    for _ in range(20):
        shuffled = runs[:]
        rng.shuffle(shuffled)
        chosen, shares = turns(runs, shares)
        again, other = turns(shuffled, other)
        assert chosen
        assert {r.job_id for r in chosen} == {r.job_id for r in again}
        assert chosen == [r for r in runs if r in chosen]
        for run in chosen:
            shares, other = shares.charged(run.tenant_id, run.cost), other.charged(run.tenant_id, run.cost)
    assert (shares.order, dict(shares.deficits)) == (other.order, dict(other.deficits))


@settings(max_examples=60, deadline=None)
@given(RUNS, st.integers(0, 50))
def test_shares_are_as_near_to_ideal_in_a_long_window_as_in_a_short_one(runs: list[Run], begin: int):
    """Between any two batches what tenants were given over their weight differs by no more than two turns of each and
    of the tenant whose turn is dearest for its weight: never by more, however long the window."""
    played = play(runs, 150)
    dearest = {r.tenant_id: max(x.cost for x in runs if x.tenant_id == r.tenant_id) / r.weight for r in runs}
    weights = {r.tenant_id: r.weight for r in runs}
    for end in range(begin + 1, 150, 7):
        served = {t: (played.scored[end][t] - played.scored[begin][t]) / weights[t] for t in weights}
        for t in served:
            for u in served:
                assert served[t] - served[u] <= 2 * (max(dearest.values()) + dearest[t] + dearest[u]) + 1e-6


@settings(max_examples=40, deadline=None)
@given(RUNS)
def test_nobody_starves_however_wide_its_steps_are(runs: list[Run]):
    """Every run has its turn before the others have had what pays for all of its tenant's runs once."""
    played = play(runs, 600)
    weight = {r.tenant_id: r.weight for r in runs}
    round_of = max(sum(x.cost for x in runs if x.tenant_id == t) / w for t, w in weight.items())
    patience = sum(2 * round_of * w for w in weight.values()) + 2 * sum(r.cost for r in runs)
    last: dict[str, int] = {r.job_id: 0 for r in runs}
    for batch, scored in zip(played.batches, played.scored, strict=True):
        for run in batch:
            last[run.job_id] = scored.total()
        assert all(scored.total() - at <= patience for at in last.values())
