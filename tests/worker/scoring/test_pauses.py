"""A scoring forward pauses for what is served, at every point where it may: neither comes to anything else for it."""

from collections.abc import Iterator
from functools import partial

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
Request = tuple[list[int], LoRARequest | None, int]  # from which token on it wears it


def undisturbed(
    pair: Pair, prompt: list[int], adapter: LoRARequest | None, start: int = 0, count: int = TOKENS
) -> list[int]:
    """The tokens of a request that is alone on the engine."""
    with served(Streams(pair.vllm.engine)) as streams:
        streams.ask(name := f"alone-{len(prompt)}-{adapter}", prompt, count, adapter, start)
        return list(streams.wait(name))


def scored_among(pair: Pair, trials: list[Trial], requests: list[Request]) -> list[Loss]:
    """The losses of trials that pause for a step at every point, each of the `requests` served over and over. What
    these come to is checked."""
    alone = [undisturbed(pair, *request) for request in requests]

    def more(streams: OneStep) -> None:
        for number, (prompt, adapter, start) in enumerate(requests):
            streams.ask(f"{len(streams.tokens)}-{number}", prompt, TOKENS, adapter, start)

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
def requests(pair: Pair) -> Iterator[list[Request]]:
    """Of the bare base, of an adapter and of one that begins to act within the prompt, in one batch."""
    rng = np.random.default_rng(71)
    shape = layout(pair.modules, 8, 16.0)
    worn = [Wearable(f"pauses@{n}", shape, probe(rng, shape)) for n in range(2)]
    owner, places = pair.vllm.owner, pair.vllm.engine.places
    one, two = (owner.run(partial(places.take, wearable)) for wearable in worn)
    yield [(tokens(rng, 9).tolist(), None, 0), (tokens(rng, 21).tolist(), one, 0), (tokens(rng, 30).tolist(), two, 11)]
    for wearable in worn:
        owner.run(partial(places.give, wearable.name))


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
    own, seen = engine._attending.own, []
    with served(Streams(engine)) as streams:

        def attended(number, *args, **kwargs):
            if number == 0 or seen:
                return own(number, *args, **kwargs)
            streams.ask("comes", prompt, TOKENS)
            seen.append(dict(streams.tokens))
            out = own(number, *args, **kwargs)
            seen.append(dict(streams.tokens))
            return out

        monkeypatch.setattr(engine._attending, "own", attended)
        assert pair.vllm.score(trials) == alone
    assert seen == [{}, {"comes": tokens_alone}]


def test_a_forward_that_scores_is_computed_in_pieces_and_one_that_serves_is_not(pair: Pair, monkeypatch) -> None:
    lora, starts = pair.vllm.engine._lora, []
    rows_from = lora.rows_from
    monkeypatch.setattr(lora, "rows_from", lambda start: (starts.append(start), rows_from(start))[1])
    undisturbed(pair, tokens(np.random.default_rng(75), 200).tolist(), None)
    assert starts == []
    pair.vllm.score(crowd(np.random.default_rng(76), pair.modules))
    assert max(starts) > 0
