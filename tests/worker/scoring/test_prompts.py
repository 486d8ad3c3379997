"""A wave's prompts, found or computed, without an engine: a prompt's value here is its ids as text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.worker.scoring.cases import answer
from worker.engine.prompt_cache import PromptCache
from worker.scoring.prompts import prompts
from worker.types import Example


class Computing:
    """Remembers how many prompts each forward pass had."""

    def __init__(self) -> None:
        self.passes: list[int] = []

    def __call__(self, sequences: Sequence[NDArray[np.int32]]) -> list[str]:
        self.passes.append(len(sequences))
        return [said(s) for s in sequences]


def said(ids: NDArray[np.int32]) -> str:
    return " ".join(map(str, ids))


def rows(*lengths: int) -> list[Example]:
    rng = np.random.default_rng(0)
    return [answer(rng, n, 1, 1) for n in lengths]


def test_every_piece_gets_its_own_prompt_and_none_where_it_continues_none() -> None:
    a, b = rows(5, 9)
    numbers, values = prompts(
        [("ada", a), None, ("ada", b), ("ada", a)], PromptCache[str](1000), Computing(), token_bytes=1, max_tokens=100
    )
    assert [None if n < 0 else values[n] for n in numbers] == [said(a.prompt), None, said(b.prompt), said(a.prompt)]


def test_a_prompt_is_computed_once_a_scope_and_as_many_at_a_time_as_fit() -> None:
    a, b, c = rows(5, 9, 30)
    cache, compute = PromptCache[str](1000), Computing()
    asked = [("ada", a), ("ben", a), ("ada", b), ("ada", c), ("ada", a)]
    for _ in range(2):
        prompts(asked, cache, compute, token_bytes=2, max_tokens=20)
    assert compute.passes == [3, 1], "ada's and ben's a and b fit 20 tokens, c has a pass to itself; then all are found"
    assert cache.held == 2 * (5 + 5 + 9 + 30)


def test_what_the_budget_has_no_room_for_is_returned_all_the_same() -> None:
    a, b = rows(5, 9)
    cache, compute = PromptCache[str](6), Computing()
    for _ in range(2):
        _, values = prompts([("ada", a), ("ada", b)], cache, compute, token_bytes=1, max_tokens=100)
        assert values == [said(a.prompt), said(b.prompt)]
    assert (cache.held, compute.passes) == (5, [2, 1])
