"""Adapters on the last layers alone: scored from where they begin to act, and equal to the oracle, which knows of no
such thing."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from tests.worker.scoring.cases import ANSWERABLE, activated, answer, choice, probe, text
from tests.worker.scoring.conftest import Pair
from tests.worker.scoring.test_engine_scorer import TOKEN, flat
from tests.worker.scoring.test_pauses import requests, scored_among
from worker.engine.prompt_cache import PromptCache
from worker.types import Example, Layout, Trial

__all__ = ["requests"]  # a fixture


@pytest.fixture
def fresh(pair: Pair) -> Iterator[Pair]:
    """The pair with nothing kept."""
    kept = pair.vllm.prompt_cache
    pair.vllm.prompt_cache = PromptCache(kept.budget)
    yield pair
    pair.vllm.prompt_cache = kept


def upper(pair: Pair, *suffixes: str) -> Layout:
    """Of the last of the two layers."""
    named = [m for m in pair.modules if ".1." in m.name]
    return Layout(4, 8.0, tuple(m for m in named if not suffixes or m.name.rpartition(".")[2] in suffixes))


def whole(pair: Pair, rng: np.random.Generator) -> list[Trial]:
    """Probes of the last layer on the same rows, two tenants, one among them on all layers, and the bare base."""
    rows = (text(rng, 30), text(rng, 7, scored=2), choice(rng, 11))
    last, all_of_it = upper(pair), Layout(2, 4.0, tuple(pair.modules))
    return [
        Trial(last, probe(rng, last), rows, "lm", "ada"),
        Trial(last, probe(rng, last), rows, "lm", "ada"),
        Trial(all_of_it, probe(rng, all_of_it), rows, "lm", "ben"),
        Trial(last, probe(rng, last), rows[:2], "lm", "ben"),
        Trial(None, None, rows, "lm", "ada"),
    ]


def tails(pair: Pair, rng: np.random.Generator) -> list[Trial]:
    rows: tuple[Example, ...] = tuple(
        answer(rng, n, *t) for n, t in [(40, (1, 1)), (9, (3, 2)), (0, (1, 2)), (21, (4,))]
    )
    last = activated(upper(pair, *ANSWERABLE.get(pair.path.name.split("-")[1], ())))
    return [Trial(last, probe(rng, last), rows, "choice", scope) for scope in ("ada", "ada", "ben")]


@contextmanager
def visited(pair: Pair) -> Iterator[list[int]]:
    """How many tokens went through the attention of the first layer, call by call."""
    seen: list[int] = []
    first = pair.vllm.engine.depth._stack.layers[0]
    handle = first.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("made", [whole, tails])
def test_every_token_equals_the_oracle_cold_and_warm(fresh: Pair, made) -> None:
    trials = made(fresh, np.random.default_rng(77))
    theirs = flat(fresh.oracle.logprobs(trials))
    bare = flat(fresh.oracle.logprobs([Trial(None, None, t.examples, t.objective) for t in trials]))
    assert np.abs(bare - theirs).max() > 0.1, "the adapters must matter for this test to say anything"
    for _ in range(2):
        np.testing.assert_allclose(flat(fresh.vllm.logprobs(trials)), theirs, rtol=0, atol=TOKEN)


@pytest.mark.parametrize("made", [whole, tails])
def test_the_layers_below_are_visited_once_a_row_and_scope(fresh: Pair, made) -> None:
    trials = [t for t in made(fresh, np.random.default_rng(78)) if t.below]
    distinct = {t.scope: t for t in trials}.values()
    once = sum(sum(e.tokens + e.start for e in t.examples) for t in distinct)
    with visited(fresh) as cold:
        fresh.vllm.logprobs(trials)
    assert 0 < sum(cold) <= once
    with visited(fresh) as warm:
        fresh.vllm.logprobs([Trial(t.layout, t.params * 2, t.examples, t.objective, t.scope) for t in trials])
    assert warm == []


def test_a_scope_learns_nothing_of_what_another_keeps(fresh: Pair) -> None:
    rng = np.random.default_rng(79)
    last, rows = upper(fresh), (text(rng, 12),)
    params = probe(rng, last)
    fresh.vllm.logprobs([Trial(last, params, rows, "lm", "ada")])
    with visited(fresh) as seen:
        fresh.vllm.logprobs([Trial(last, params, rows, "lm", "ben")])
    assert sum(seen) == rows[0].tokens


def test_where_nothing_fits_the_cache_it_is_computed_again(fresh: Pair) -> None:
    fresh.vllm.prompt_cache = PromptCache(1)
    trials = [t for t in whole(fresh, np.random.default_rng(80)) if t.below]
    theirs = flat(fresh.oracle.logprobs(trials))
    for _ in range(2):
        np.testing.assert_allclose(flat(fresh.vllm.logprobs(trials)), theirs, rtol=0, atol=TOKEN)


@pytest.mark.parametrize("made", [whole, tails])
def test_it_pauses_for_what_is_served_and_keeps_every_bit(fresh: Pair, requests, made) -> None:
    """What is served in a pause goes through all layers, whether the forward ends below the adapter or begins there."""
    trials = 3 * [t for t in made(fresh, np.random.default_rng(81)) if t.below]  # so many that it pauses often
    cold, warm = fresh.vllm.score(trials), fresh.vllm.score(trials)
    fresh.vllm.prompt_cache = PromptCache(fresh.vllm.prompt_cache.budget)
    assert scored_among(fresh, trials, requests) == cold
    assert scored_among(fresh, trials, requests) == warm
