"""Adapters of activation `answer` in the vLLM scorer against PEFT's own aLoRA, on every architecture."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.worker.scoring.cases import ANSWERABLE, INVOCATION, activated, answer, crowd, layout, probe, text
from tests.worker.scoring.conftest import MAX_TOKENS, Pair
from tests.worker.scoring.test_engine_scorer import TOKEN, flat
from worker.engine.prompt_cache import PromptCache
from worker.types import Example, Layout, Trial


@pytest.fixture
def fresh(pair: Pair) -> Iterator[Pair]:
    """The pair with nothing kept of any prompt; budget and ways of reading are put back afterwards."""
    engine, scorer = pair.vllm.engine, pair.vllm
    kept = scorer.prompt_cache, scorer._max_prompts, engine.together
    scorer.prompt_cache = PromptCache(kept[0].budget)
    yield pair
    scorer.prompt_cache, scorer._max_prompts, engine.together = kept


def shapes(pair: Pair) -> tuple[Layout, Layout]:
    """A large and a small adapter, of modules that PEFT can activate on this architecture."""
    targets = ANSWERABLE.get(pair.path.name.split("-")[1], ())
    large = layout(pair.modules, 8, 16.0, *targets)
    return activated(large), activated(layout(pair.modules, 2, 4.0, "q_proj", "v_proj"))


def rows(rng: np.random.Generator, longest: int = 120) -> tuple[Example, ...]:
    """Choices of one token and of several, one text alone, an adapter that starts at once; prompts short and long."""
    tails = [(1, 1), (3, 2, 4), (1, 1, 1), (5,), (2, 2), (1, 1)]
    prompts = [*(int(rng.integers(1, longest)) for _ in tails[1:]), 0]
    return tuple(answer(rng, n, *t) for n, t in zip(prompts, tails, strict=True))


def mixture(pair: Pair, rng: np.random.Generator) -> list[Trial]:
    """Activated adapters of two layouts, the bare base on the same rows, and a crowd of ordinary trials between."""
    large, small = shapes(pair)
    same, other = rows(rng), rows(rng, 30)
    ordinary = crowd(rng, pair.modules)
    return [
        Trial(large, probe(rng, large), same, "choice", "ada"),
        ordinary[0],
        Trial(small, probe(rng, small), same, "choice", "ben"),
        Trial(None, None, same, "choice", "ada"),
        *ordinary[1:4],
        Trial(large, probe(rng, large), other, "lm", "ben"),
        Trial(large, probe(rng, large), same, "choice", "ada"),
    ]


@pytest.mark.parametrize("together", [0, 40, 1 << 62])
def test_every_token_equals_peft(fresh: Pair, together: int) -> None:
    """Cold and warm, prompts read one by one (as a CPU does long ones), side by side (as a GPU does), and mixed."""
    fresh.vllm.engine.together = together
    trials = mixture(fresh, np.random.default_rng(31))
    theirs = flat(fresh.oracle.logprobs(trials))
    for _ in range(2):
        np.testing.assert_allclose(flat(fresh.vllm.logprobs(trials)), theirs, rtol=0, atol=TOKEN)
    assert fresh.vllm.prompt_cache.found > 0
    plain = [
        t if t.layout is None else replace(t, layout=replace(t.layout, invocation=()))
        for t in (trials[0], trials[2], trials[7])
    ]
    everywhere = flat(fresh.oracle.logprobs(plain))
    activated_only = flat(fresh.oracle.logprobs([trials[0], trials[2], trials[7]]))
    assert np.abs(everywhere - activated_only).max() > 0.1, "where the adapter acts must matter"


def test_a_prompt_is_computed_once_for_probes_steps_and_candidates(fresh: Pair) -> None:
    rng = np.random.default_rng(32)
    large, small = shapes(fresh)
    examples = rows(rng)
    probes = [Trial(large, probe(rng, large), examples, "choice") for _ in range(4)]
    fresh.vllm.score(probes)
    with_prompt = sum(e.start > 0 for e in examples)
    assert fresh.vllm.prompt_cache.missed >= with_prompt
    missed = fresh.vllm.prompt_cache.missed
    fresh.vllm.score([replace(t, params=probe(rng, large)) for t in probes])
    fresh.vllm.score([Trial(small, probe(rng, small), examples, "choice"), Trial(None, None, examples, "choice")])
    assert fresh.vllm.prompt_cache.missed == missed
    assert fresh.vllm.prompt_cache.stored == with_prompt


def test_evicted_prompts_are_computed_again(fresh: Pair) -> None:
    """A budget of a few prompts, waves of fewer: every answer stays the oracle's, and the budget holds."""
    rng = np.random.default_rng(33)
    large, small = shapes(fresh)
    budget = 150 * fresh.vllm.engine.token_bytes
    fresh.vllm.prompt_cache = PromptCache(budget)
    fresh.vllm._max_prompts = 60
    sets = [tuple(answer(rng, int(rng.integers(5, 50)), 1, 1) for _ in range(6)) for _ in range(4)]
    trials = [
        Trial(shape, probe(rng, shape), examples, "choice", scope)
        for examples, scope in zip(sets, ("ada", "ben", "ada", "cyd"), strict=True)
        for shape in (large, small)
    ]
    theirs = flat(fresh.oracle.logprobs(trials))
    for _ in range(3):
        np.testing.assert_allclose(flat(fresh.vllm.logprobs(trials)), theirs, rtol=0, atol=TOKEN)
        assert fresh.vllm.prompt_cache.held <= budget
    assert fresh.vllm.prompt_cache.evicted > 0


def test_tenants_find_only_their_own_prompts_and_read_the_same(fresh: Pair) -> None:
    """The second tenant's first step computes what the first has computed before, and says nothing of it."""
    rng = np.random.default_rng(34)
    large, _ = shapes(fresh)
    examples = tuple(answer(rng, 30, 1, 1) for _ in range(3))
    params = probe(rng, large)
    computed: list[int] = []
    engine = fresh.vllm.engine
    original = engine.keys_and_values

    def counting(sequences):
        computed.append(len(sequences))
        return original(sequences)

    engine.keys_and_values = counting  # type: ignore[method-assign]
    try:
        first = flat(fresh.vllm.logprobs([Trial(large, params, examples, "choice", "ada")]))
        second = flat(fresh.vllm.logprobs([Trial(large, params, examples, "choice", "ben")]))
        again = flat(fresh.vllm.logprobs([Trial(large, params, examples, "choice", "ben")]))
    finally:
        del engine.keys_and_values  # type: ignore[method-assign]
    assert computed == [3, 3]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(second, again)
    assert fresh.vllm.prompt_cache.stored == 3


def test_a_probe_that_is_not_finite_stays_alone(fresh: Pair) -> None:
    """Also where another tenant continues the same prompts in the same wave."""
    rng = np.random.default_rng(35)
    large, small = shapes(fresh)
    examples = rows(rng)
    good = [Trial(shape, probe(rng, shape), examples, "choice", "ada") for shape in (large, small)]
    alone = flat(fresh.vllm.logprobs(good))
    bad = [Trial(large, np.full(large.size, x, np.float32), examples, "choice", "ben") for x in (np.nan, 1e30)]
    answers = fresh.vllm.logprobs([good[0], bad[0], good[1], bad[1]])
    np.testing.assert_allclose(flat([answers[0], answers[2]]), alone, rtol=0, atol=TOKEN)
    assert not any(np.isfinite(flat([answers[i]])).any() for i in (1, 3))
    np.testing.assert_array_equal(flat(fresh.vllm.logprobs(good)), alone)


def test_tokens_in_common_are_computed_once_in_activation_all_too(fresh: Pair) -> None:
    """Candidates of several tokens that share their prompt: fewer tokens, the same answers."""
    rng = np.random.default_rng(36)
    shape = layout(fresh.modules, 8, 16.0)
    examples = tuple(replace(answer(rng, n, 3, 2, 4), start=0) for n in (3, 40, 17))
    trials = [Trial(shape, probe(rng, shape), examples, "choice") for _ in range(2)]
    mine, theirs = fresh.vllm.score(trials), fresh.oracle.score(trials)
    np.testing.assert_allclose(
        flat(fresh.vllm.logprobs(trials)), flat(fresh.oracle.logprobs(trials)), rtol=0, atol=TOKEN
    )
    for a, b, t in zip(mine, theirs, trials, strict=True):
        whole = sum(len(s) for e in t.examples for s in e.sequences)
        assert a.tokens == b.tokens == sum(len(e.sequences[0]) + 1 + 3 for e in t.examples) < whole


def test_many_branches_beyond_a_wave(fresh: Pair) -> None:
    rng = np.random.default_rng(37)
    large, _ = shapes(fresh)
    many = answer(rng, 20, *[12] * 16)
    assert many.tokens > MAX_TOKENS
    trials = [Trial(large, probe(rng, large), (many, answer(rng, 9, 1, 1)), "choice")]
    np.testing.assert_allclose(
        flat(fresh.vllm.logprobs(trials)), flat(fresh.oracle.logprobs(trials)), rtol=0, atol=TOKEN
    )


def test_what_does_not_fit_together_is_refused(pair: Pair) -> None:
    rng = np.random.default_rng(38)
    large, _ = shapes(pair)
    plain = replace(large, invocation=())
    params = probe(rng, large)
    row = answer(rng, 10, 1, 1)
    for trial, why in [
        (Trial(plain, params, (row,), "choice"), "every token"),
        (Trial(large, params, (replace(row, start=9),), "choice"), "other tokens"),
        (Trial(large, params, (text(rng, 10),), "lm"), "other tokens"),
        (Trial(large, params, (replace(row, start=len(row.sequences[0])),), "choice"), "inside"),
        (Trial(large, params, (replace(answer(rng, 10, 3, 3), shared=9),), "choice"), "in common"),
        (Trial(None, None, (replace(text(rng, 10), start=4),), "lm"), "before its adapter starts"),
    ]:
        with pytest.raises(ValueError, match=why):
            pair.vllm.score([trial])
    assert tuple(row.sequences[0][10:12]) == INVOCATION


def test_the_hooks_of_a_failing_forward_are_gone(fresh: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(39)
    large, _ = shapes(fresh)
    trials = [Trial(large, probe(rng, large), (answer(rng, 30, 1, 1),), "choice"), *crowd(rng, fresh.modules)[:2]]
    before = flat(fresh.vllm.logprobs(trials))
    with monkeypatch.context() as patch:
        patch.setattr(fresh.vllm.engine._layers[-1].impl, "scale", None)  # the last layer's attention breaks
        with pytest.raises(TypeError):
            fresh.vllm.score(trials[:1])
    assert not any("forward" in vars(layer) for layer in fresh.vllm.engine._layers)
    np.testing.assert_array_equal(flat(fresh.vllm.logprobs(trials)), before)
