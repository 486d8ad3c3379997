"""Queues by tenant: fair in tokens, bounded, and nobody waits for ever for a place."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from worker.serving.queues import PATIENCE, Queues, Waiting

LARGE = 10**9


def one(tenant: str, cost: int = 10, wears: str | None = None, weight: float = 1.0) -> Waiting[None]:
    return Waiting(tenant, weight, cost, wears, None)


def filled(*waiting: Waiting[None], limit: int = LARGE) -> Queues[None]:
    queues: Queues[None] = Queues(limit)
    for each in waiting:
        assert queues.put(each) == []
    return queues


def anyone(_: Waiting[None]) -> bool:
    return True


def drained(queues: Queues[None], accept: Callable[[Waiting[None]], bool] = anyone) -> list[Waiting[None]]:
    order = []
    while (taken := queues.take(accept)) is not None:
        order.append(taken)
    return order


def test_a_tenants_own_requests_go_in_their_order() -> None:
    mine = [one("a") for _ in range(5)]
    assert drained(filled(*mine)) == mine


def test_tenants_take_turns_whoever_came_first() -> None:
    flood, later = [one("a") for _ in range(6)], [one("b") for _ in range(2)]
    order = [each.tenant for each in drained(filled(*flood, *later))]
    assert order[:4] in (["a", "b", "a", "b"], ["a", "b", "b", "a"])


def test_weights_are_shares_of_tokens() -> None:
    queues = filled(*(one("a", weight=3.0) for _ in range(40)), *(one("b") for _ in range(40)))
    first = [queues.take(anyone) for _ in range(40)]
    assert sum(each is not None and each.tenant == "a" for each in first) in (29, 30, 31)


def test_who_was_away_has_saved_nothing() -> None:
    queues = filled(*(one("a") for _ in range(50)), one("b"))
    for _ in range(40):
        queues.take(anyone)
    for each in [one("b") for _ in range(20)]:
        queues.put(each)
    assert sum(each.tenant == "b" for each in drained(queues)[:10]) in (5, 6)


def test_what_was_not_taken_is_given_back_and_what_was_taken_is_charged() -> None:
    queues = filled(one("a", 100), one("a", 100), one("b", 100), one("b", 100))
    first, second = queues.take(anyone), queues.take(anyone)
    assert first is not None
    assert second is not None
    queues.ended(first, 1)
    queues.took(second, 500)
    third = queues.take(anyone)
    fourth = queues.take(anyone)
    assert third is not None
    assert fourth is not None
    assert (third.tenant, fourth.tenant) == (first.tenant, second.tenant)
    queues.took(fourth, 10)  # less than it was charged: not before it ends
    assert fourth.charged == 100


def test_one_that_waits_for_a_place_holds_nobody_up() -> None:
    stuck, base, other = one("a", wears="x"), one("a"), one("b", wears="y")
    queues = filled(stuck, base, other)
    assert set(drained(queues, lambda w: w.wears != "x")) == {base, other}
    assert queues.take(anyone) is stuck


def test_beyond_the_bound_the_latest_of_whoever_waits_most_goes() -> None:
    flood = [one("a", 100) for _ in range(9)]
    queues = filled(*flood, limit=1000)
    mine = one("b", 300)
    assert queues.put(mine) == flood[:-3:-1]
    assert queues.put(late := one("a", 100)) == [late]
    assert queues.tokens == 1000
    assert mine in drained(queues)
    assert queues.tokens == 0


def test_one_that_is_larger_than_the_bound_is_taken_where_nothing_waits() -> None:
    queues: Queues[None] = Queues(100)
    assert queues.put(large := one("a", 500)) == []
    assert queues.put(next_one := one("b", 1)) == [large]
    assert queues.take(anyone) is next_one


def test_what_was_taken_out_waits_no_more() -> None:
    first, second = one("a"), one("a")
    queues = filled(first, second)
    assert queues.remove(first)
    assert not queues.remove(first)
    assert drained(queues) == [second]
    assert not queues.remove(second)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), min_size=1, max_size=200))
def test_two_that_always_wait_are_never_further_apart_than_a_request_of_each(asked: list[tuple[str, int]]) -> None:
    queues = filled(*(one(tenant, cost) for tenant, cost in asked))
    left = {t: sum(1 for tenant, _ in asked if tenant == t) for t in "abc"}
    served = dict.fromkeys("abc", 0)
    while (taken := queues.take(anyone)) is not None:
        served[taken.tenant] += taken.cost
        left[taken.tenant] -= 1
        waiting = [served[t] for t in "abc" if left[t]]
        assert not waiting or max(waiting) - min(waiting) <= 100


@dataclass
class House:
    """Places, and requests that run for as many rounds as they say."""

    places: int
    running: list[tuple[Waiting[None], int]] = field(default_factory=list)

    def fits(self, one: Waiting[None]) -> bool:
        held = {w.wears for w, _ in self.running if w.wears is not None}
        return one.wears is None or one.wears in held or len(held) < self.places

    def round(self, queues: Queues[None], most: int) -> None:
        while len(self.running) < most and (taken := queues.take(self.fits)) is not None:
            self.running.append((taken, 3))
        for ended in [w for w, left in self.running if left == 1]:
            queues.ended(ended, ended.cost)
        self.running = [(w, left - 1) for w, left in self.running if left > 1]


@given(
    st.integers(1, 3), st.integers(2, 6), st.sampled_from(["a", "b"]),
    st.lists(st.sampled_from([None, "p", "q", "r", "s"]), min_size=1, max_size=8), st.integers(64, 512),
)  # fmt: skip
def test_nobody_starves_beside_tenants_that_never_stop(
    places: int, most: int, mine: str, theirs: list[str | None], cost: int
) -> None:
    """Others keep every place pinned by an endless stream of requests, perhaps of the same tenant."""
    queues, house, round_ = filled(), House(places), 0
    for number in range(4 * places):
        queues.put(one("a", cost, f"held-{number % places}"))
    house.round(queues, most)
    wanted = one(mine, cost, "wanted")
    queues.put(wanted)
    while not any(w is wanted for w, _ in house.running):
        for number, wears in enumerate([*theirs, *(f"held-{n}" for n in range(places))]):
            queues.put(one("ac"[number % 2], cost, wears))
        house.round(queues, most)
        round_ += 1
        assert round_ <= 10 + 8 * (PATIENCE // cost + 1), "it starves"


def test_a_thousand_adapters_of_one_tenant_cost_another_no_more_than_its_share() -> None:
    """Both want places all the time: of the tokens served, half are the other's."""
    queues, house = filled(*(one("many", 100, f"adapter-{n}") for n in range(1000))), House(2)
    served = {"many": 0, "few": 0}
    for _ in range(300):
        while sum(w.tenant == "few" for w in queues.everyone()) < 4:
            queues.put(one("few", 100, "mine"))
        before = len(house.running)
        house.round(queues, 4)
        for w, _ in house.running[max(before - 4, 0) :]:
            served[w.tenant] += w.cost
    assert served["few"] >= 0.4 * sum(served.values())
