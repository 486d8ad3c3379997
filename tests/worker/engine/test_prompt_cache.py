"""The prompt cache: its budget, who makes room, and that no scope can tell what another keeps."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.prompt_cache import PromptCache


def use(cache: PromptCache[int], scope: str, prompt: int, size: int = 10) -> bool:
    """As a scorer does: look, and compute and put what is not there. Whether it was there."""
    key = str(prompt).encode()
    found = cache.get(scope, key)
    if found is None:
        cache.put(scope, key, prompt, size)
        return False
    assert found == prompt
    return True


USES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.integers(1, 40)), max_size=80)


@settings(max_examples=300)
@given(USES, st.integers(0, 120))
def test_the_budget_holds_and_counts_add_up(uses: list[tuple[str, int, int]], budget: int) -> None:
    cache: PromptCache[int] = PromptCache(budget)
    for scope, prompt, size in uses:
        use(cache, scope, prompt, size)
        assert 0 <= cache.held <= budget
        assert cache.held == sum(s.held for s in cache._scopes.values())
        assert cache.held == sum(size for s in cache._scopes.values() for size, _ in s.claims.values())
        assert set(cache._stored) == {p for s in cache._scopes.values() for p in s.claims}
    assert cache.found + cache.missed == len(uses)


@settings(max_examples=200)
@given(USES, st.integers(10, 120))
def test_no_scope_can_tell_whether_another_has_its_texts(uses: list[tuple[str, int, int]], budget: int) -> None:
    """What `a` finds, hit by hit, is the same whether the others use its texts or texts that nobody else has."""
    alike: PromptCache[int] = PromptCache(budget)
    apart: PromptCache[int] = PromptCache(budget)
    for scope, prompt, size in uses:
        other = prompt if scope == "a" else prompt + 1000 * ord(scope)
        assert use(alike, scope, prompt, size) == use(apart, scope, other, size)
    assert alike.stored <= apart.stored


def test_equal_texts_are_stored_once_and_stay_while_one_claim_is_left() -> None:
    cache: PromptCache[str] = PromptCache(40)
    assert cache.put("a", b"t", "first", 10) == "first"
    assert cache.get("b", b"t") is None
    assert cache.put("b", b"t", "second", 10) == "first"
    assert (cache.stored, cache.held) == (1, 20)
    for scope, other in (("b", b"1"), ("b", b"2"), ("c", b"3")):  # b keeps most and makes room by its oldest claim
        cache.put(scope, other, "x", 10)
    assert cache.get("a", b"t") == "first"
    assert cache.get("b", b"t") is None


def test_the_scope_that_keeps_most_makes_room() -> None:
    cache: PromptCache[int] = PromptCache(100)
    for prompt in range(10):
        use(cache, "greedy", prompt)
    for prompt in range(5):
        assert not use(cache, "modest", 100 + prompt)
    assert all(use(cache, "modest", 100 + prompt) for prompt in range(5))
    assert [use(cache, "greedy", prompt) for prompt in range(9, 4, -1)] == [True] * 5  # what it used last


def test_half_of_a_dataset_twice_the_budget_is_found() -> None:
    """Walked in a new order each epoch; the least recently used would be thrown out just before it is wanted."""
    cache: PromptCache[int] = PromptCache(500)
    rng = random.Random(0)
    for epoch in range(8):
        order = rng.sample(range(100), 100)
        found = sum(use(cache, "a", prompt) for prompt in order)
        assert found == (50 if epoch else 0)


def test_a_new_dataset_takes_over_from_one_that_is_used_no_more() -> None:
    cache: PromptCache[int] = PromptCache(500)
    for prompt in range(50):
        use(cache, "a", prompt)
    for _ in range(8):
        found = [use(cache, "a", 1000 + prompt) for prompt in range(40)]
    assert all(found)


def test_what_is_larger_than_the_budget_is_not_kept_and_evicts_nothing() -> None:
    cache: PromptCache[int] = PromptCache(100)
    use(cache, "a", 1)
    assert cache.put("a", b"huge", 7, 101) == 7
    assert cache.get("a", b"huge") is None
    assert use(cache, "a", 1)
