"""Scoring and serving in one engine: neither sees the other's adapters or keys and values."""

from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.lora.request import LoRARequest

from tests.worker.scoring.cases import crowd, layout, lm, probe, tokens
from tests.worker.scoring.conftest import MAX_TOKENS, SLOTS, Pair
from worker.scoring.packing import waves
from worker.types import Candidate, Example, Layout, Params, Trial, Wearable


def served(pair: Pair, prompts: list[np.ndarray], adapters: list[LoRARequest | None]) -> list[list[float]]:
    """Log-probabilities of every prompt token but the first, by vLLM's own scheduler and LoRA path."""
    engine = pair.vllm.engine
    sampling = SamplingParams(max_tokens=2, temperature=0, prompt_logprobs=0)
    finished: dict[int, Any] = {}

    def serve() -> None:
        for number, (prompt, adapter) in enumerate(zip(prompts, adapters, strict=True)):
            engine.add_request(str(number), prompt.tolist(), sampling, adapter)
        while len(finished) < len(prompts):
            finished.update({int(output.request_id): output for output in engine.step() if output.finished})

    pair.vllm.owner.run(serve)
    return [
        [row[int(t)].logprob for row, t in zip(finished[number].prompt_logprobs[1:], prompt[1:], strict=True)]
        for number, prompt in enumerate(prompts)
    ]


def whole(shape: Layout | None, params: Params | None, ids: np.ndarray) -> Trial:
    rows = Candidate(0, np.arange(len(ids) - 1, dtype=np.int32), ids[1:])
    return Trial(shape, params, (Example((ids[:-1],), (rows,)),), "lm")


def test_served_requests_get_their_own_adapter_or_none(pair: Pair) -> None:
    """A request without adapter beside one with: in vLLM's CPU path it got the last slot's adapter (index -1)."""
    rng = np.random.default_rng(11)
    shape = layout(pair.modules, 8, 16.0)
    params = probe(rng, shape)
    places, owner = pair.vllm.engine.places, pair.vllm.owner
    adapter = owner.run(lambda: places.take(Wearable("ours", shape, params)))
    prompts = [tokens(rng, n) for n in (20, 33, 12, 7)]
    wearing = [None, adapter, None, adapter]
    answers = served(pair, prompts, wearing)
    owner.run(lambda: places.give("ours"))
    expected = [whole(shape if w else None, params if w else None, p) for w, p in zip(wearing, prompts, strict=True)]
    for answer, theirs, mine in zip(answers, pair.oracle.logprobs(expected), pair.vllm.logprobs(expected), strict=True):
        np.testing.assert_allclose(answer, theirs[0][0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(mine[0][0], theirs[0][0], rtol=0, atol=1e-5)
    bare, _ = pair.oracle.logprobs([whole(None, None, prompts[1]), expected[1]])
    assert np.abs(bare[0][0] - np.array(answers[1])).max() > 0.1, "the adapter must matter"


def test_scoring_between_two_steps_of_a_generation_changes_nothing(pair: Pair) -> None:
    """A request is decoding, its keys and values in the engine's cache; a full score call runs; it decodes on."""
    engine, owner = pair.vllm.engine, pair.vllm.owner
    rng = np.random.default_rng(12)
    prompt = tokens(rng, 40).tolist()
    params = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
    trials = crowd(rng, pair.modules)
    before = [x.total for x in pair.vllm.score(trials)]

    def generate(name: str, interrupted: bool) -> tuple[list[int], list[float]]:
        owner.run(lambda: engine.add_request(name, prompt, params))
        tokens_out: list[int] = []
        scored: list[float] = []
        while len(tokens_out) < 12:
            for output in owner.run(engine.step):
                tokens_out = list(output.outputs[0].token_ids)
            if interrupted and len(tokens_out) == 4:
                scored = [x.total for x in pair.vllm.score(trials)]
        return tokens_out, scored

    undisturbed, _ = generate("undisturbed", False)
    disturbed, scored = generate("disturbed", True)
    assert disturbed == undisturbed
    assert scored == before


def test_the_engine_is_used_on_its_own_thread_only(pair: Pair) -> None:
    engine = pair.vllm.engine
    ids = tokens(np.random.default_rng(16), 4)
    hidden = pair.vllm.owner.run(lambda: engine.forward(ids, [4], ()))
    for use in (
        lambda: engine.forward(ids, [4], ()),
        lambda: engine.logits(hidden),
        engine.step,
        lambda: engine.add_request("x", [1], SamplingParams()),
        engine.close,
    ):
        with pytest.raises(RuntimeError, match="on its own thread only"):
            use()


def test_every_wave_is_an_act(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a long call waits for one of its waves."""
    trials = crowd(np.random.default_rng(17), pair.modules)
    acts, run = [], pair.vllm.owner.run
    monkeypatch.setattr(pair.vllm.owner, "run", lambda act: (acts.append(act), run(act))[1])
    pair.vllm.score(trials)
    packed = waves(trials, SLOTS, MAX_TOKENS)
    assert len(packed) > 1
    assert len(acts) == len(packed)


def test_the_scheduler_keeps_every_block(pair: Pair) -> None:
    """Scoring takes none of the engine's own cache: it is byte for byte what it was."""
    layers = pair.vllm.engine._layers
    kept = [layer.kv_cache.clone() for layer in layers]
    where = [layer.kv_cache.data_ptr() for layer in layers]
    rng = np.random.default_rng(13)
    shape = layout(pair.modules, 2, 16.0)
    pair.vllm.score([lm(rng, shape, probe(rng, shape), rows=8)])
    assert [layer.kv_cache.data_ptr() for layer in layers] == where
    assert all(torch.equal(layer.kv_cache, old) for layer, old in zip(layers, kept, strict=True))


def test_a_failing_forward_leaves_the_engine_whole(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(14)
    trials = [lm(rng, None, None), lm(rng, (s := layout(pair.modules, 2, 8.0)), probe(rng, s))]
    before = [x.total for x in pair.vllm.score(trials)]
    where = [layer.kv_cache.data_ptr() for layer in pair.vllm.engine._layers]
    with monkeypatch.context() as patch:
        patch.setattr(pair.vllm._check, "vocab", 10_000)  # past the check, so that the model itself refuses
        broken = Trial(
            None, None, (Example((np.array([1, 9_000], np.int32),), trials[0].examples[0].candidates),), "lm"
        )
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            pair.vllm.score([broken])
    assert [layer.kv_cache.data_ptr() for layer in pair.vllm.engine._layers] == where
    assert [x.total for x in pair.vllm.score(trials)] == before
