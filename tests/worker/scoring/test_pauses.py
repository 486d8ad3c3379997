"""A scoring forward pauses for what is served, at every point where it may: neither comes to anything else for it."""

from collections.abc import Iterator

import numpy as np
import pytest
from vllm.lora.request import LoRARequest

from tests.worker.scoring.cases import crowd, layout, probe, tokens
from tests.worker.scoring.conftest import Pair
from tests.worker.scoring.streams import OneStep, Streams, served
from tests.worker.scoring.test_answer import fresh, mixture
from worker.engine.prompt_cache import PromptCache
from worker.types import Loss, Trial, Wearable

__all__ = ["fresh"]  # a fixture
TOKENS = 6


def undisturbed(pair: Pair, prompt: list[int], adapter: LoRARequest | None, count: int = TOKENS) -> list[int]:
    """The tokens of a request that is alone on the engine."""
    with served(Streams(pair.vllm.engine)) as streams:
        streams.ask(name := f"alone-{len(prompt)}-{adapter}", prompt, count, adapter)
        return list(streams.wait(name))


def scored_among(pair: Pair, trials: list[Trial], requests: list[tuple[list[int], LoRARequest | None]]) -> list[Loss]:
    """The losses of trials that pause for a step at every point, each of the `requests` served over and over. What
    these come to is checked."""
    alone = [undisturbed(pair, *request) for request in requests]

    def more(streams: OneStep) -> None:
        for number, (prompt, adapter) in enumerate(requests):
            streams.ask(f"{len(streams.tokens)}-{number}", prompt, TOKENS, adapter)

    owner = pair.vllm.owner
    with served(OneStep(pair.vllm.engine, more)) as streams:
        before = owner.pauses
        more(streams)
        losses = pair.vllm.score(trials)
        pauses = owner.pauses - before
    layers = len(pair.vllm.engine._layers)
    assert pauses > 4 * layers, "it must have paused"
    assert streams.steps >= pauses
    whole = {name: out for name, out in streams.tokens.items() if len(out) == TOKENS}
    assert len(whole) > 2 * len(requests)
    for name, out in whole.items():
        assert out == alone[int(name.partition("-")[2])]
    return losses


@pytest.fixture
def requests(pair: Pair) -> Iterator[list[tuple[list[int], LoRARequest | None]]]:
    """Of the bare base and of an adapter, in one batch."""
    rng = np.random.default_rng(71)
    shape = layout(pair.modules, 8, 16.0)
    worn, places, owner = Wearable("ours", shape, probe(rng, shape)), pair.vllm.engine.places, pair.vllm.owner
    adapter = owner.run(lambda: places.take(worn))
    yield [(tokens(rng, 9).tolist(), None), (tokens(rng, 21).tolist(), adapter)]
    owner.run(lambda: places.give("ours"))


def test_whole_sequences_keep_every_bit_through_pauses_at_every_point(pair: Pair, requests) -> None:
    trials = crowd(np.random.default_rng(72), pair.modules)
    alone = pair.vllm.score(trials)
    assert scored_among(pair, trials, requests) == alone


def test_branches_keep_every_bit_through_pauses_at_every_point(fresh: Pair, requests) -> None:
    """Prompts computed in a pause's company, prompts found, adapters of activation `answer` and others between."""
    trials = mixture(fresh, np.random.default_rng(73))
    cold, warm = fresh.vllm.score(trials), fresh.vllm.score(trials)
    fresh.vllm.prompt_cache = PromptCache(fresh.vllm.prompt_cache.budget)
    assert scored_among(fresh, trials, requests) == cold
    assert scored_among(fresh, trials, requests) == warm


def test_a_request_that_comes_in_the_middle_of_a_wave_is_served_in_it(pair: Pair, monkeypatch) -> None:
    """Posted from another thread while a layer computes: it has its tokens before the wave has its losses."""
    engine, rng = pair.vllm.engine, np.random.default_rng(74)
    prompt = tokens(rng, 30).tolist()
    trials = crowd(rng, pair.modules)[:2]
    alone, tokens_alone = pair.vllm.score(trials), undisturbed(pair, prompt, None)
    own, seen = engine._attended, []
    with served(Streams(engine)) as streams:

        def attended(number, *args, **kwargs):
            if number == 0 or seen:
                return own(number, *args, **kwargs)
            streams.ask("comes", prompt, TOKENS)
            seen.append(dict(streams.tokens))
            out = own(number, *args, **kwargs)
            seen.append(dict(streams.tokens))
            return out

        monkeypatch.setattr(engine, "_attended", attended)
        assert pair.vllm.score(trials) == alone
    assert seen == [{}, {"comes": tokens_alone}]
