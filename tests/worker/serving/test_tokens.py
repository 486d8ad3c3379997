"""What requests are answered equals transformers and PEFT, token for token, on every architecture."""

import numpy as np
import pytest

from tests.worker.scoring.cases import ANSWERABLE, INVOCATION, activated, crowd, layout, probe
from tests.worker.scoring.conftest import MAX_TOKENS, Pair
from tests.worker.serving.generated import Asked, Peft, admitted, give, invoked, prompt, served, step
from worker.engine.prefill import BLOCK
from worker.types import Wearable


def wardrobe(pair: Pair, seed: int = 1) -> list[Wearable]:
    """A plain adapter of few modules, one of all, of another rank, and one of activation `answer`."""
    rng = np.random.default_rng(seed)
    answerable = ANSWERABLE.get(pair.path.name.split("-")[1], ())
    shapes = [
        layout(pair.modules, 8, 16.0, "q_proj", "v_proj"),
        layout(pair.modules, 2, 3.0),
        activated(layout(pair.modules, 8, 16.0, *answerable)),
    ]
    return [
        Wearable(f"{kind}@{seed}", s, probe(rng, s)) for kind, s in zip(("few", "all", "answer"), shapes, strict=True)
    ]


def mixture(pair: Pair) -> list[Asked]:
    """Four prompts by four: the bare base and three adapters. Two prompts have the invocation, one of them twice, one
    of them is longer than a step: the invocation is in the second chunk."""
    rng = np.random.default_rng(2)
    twice = (*invoked(rng, 9, INVOCATION, 4), *invoked(rng, 3, INVOCATION, 5))
    prompts = [prompt(rng, 17), invoked(rng, 6, INVOCATION, 0), twice, invoked(rng, MAX_TOKENS + 7, INVOCATION, 21)]
    return [Asked(ids, wearable) for ids in prompts for wearable in (None, *wardrobe(pair))]


@pytest.fixture(scope="session")
def theirs(pair: Pair) -> list[list[int]]:
    oracle = Peft(pair.path)
    return [oracle.generated(asked) for asked in mixture(pair)]


def test_every_token_equals_peft_in_one_batch_and_alone(pair: Pair, theirs: list[list[int]]) -> None:
    requests = mixture(pair)
    assert served(pair.vllm.engine, requests) == theirs
    assert [served(pair.vllm.engine, [asked])[0] for asked in requests] == theirs
    kinds = np.array(theirs).reshape(4, 4, -1)
    for number in range(4):
        base, few, everywhere, answer = kinds[number].tolist()
        assert base not in (few, everywhere), "an adapter must matter for this test to say anything"
        assert (answer == base) == (number == 0), "without its invocation it never acts"


def test_scoring_between_the_steps_changes_no_token(pair: Pair, theirs: list[list[int]]) -> None:
    trials = crowd(np.random.default_rng(3), pair.modules)
    before = [x.total for x in pair.vllm.score(trials)]
    scored: list[list[float]] = []

    def score() -> None:
        if len(scored) < 6:
            scored.append([x.total for x in pair.vllm.score(trials)])

    assert served(pair.vllm.engine, mixture(pair), score) == theirs
    assert scored == [before] * 6


def test_what_a_seed_draws_does_not_depend_on_how_its_prompt_is_read(pair: Pair) -> None:
    """Of prompts shorter and longer than a step, which together are cut elsewhere than alone. A seed is drawn from for
    what is kept: what vLLM throws away while a prompt is read is no token, and its draw ended the engine."""
    rng = np.random.default_rng(5)
    lengths = (20, MAX_TOKENS - 30, MAX_TOKENS + 20, 40)
    asked = [Asked(prompt(rng, length), seed=seed) for seed, length in enumerate(lengths)]
    alone = [served(pair.vllm.engine, [one])[0] for one in asked]
    assert served(pair.vllm.engine, asked) == alone
    assert served(pair.vllm.engine, asked[::-1]) == alone[::-1]
    assert served(pair.vllm.engine, [Asked(asked[2].ids, seed=9)]) != [alone[2]], "a seed must matter"


def test_a_later_start_shares_what_lies_before_the_earlier_one_and_no_more(pair: Pair) -> None:
    """A conversation's next turn: what was the answer is now before the last invocation, and wears nothing. Its tokens
    are in the prefix cache, as the adapter had them. What was before the first invocation is there as the base's: for
    the base too, for an adapter that acts on it not, and for nobody of another salt."""
    rng, oracle = np.random.default_rng(4), Peft(pair.path)
    few, _, answer = wardrobe(pair)
    salt = f"one of {pair.path.name}"
    first = Asked(invoked(rng, 70, INVOCATION, 30), answer, salt=salt)
    assert found(pair, first) == (oracle.generated(first), 0)
    second = Asked((*first.ids, *oracle.generated(first), *INVOCATION, 12), answer, salt=salt)
    base, plain = Asked(second.ids[:101], salt=salt), Asked(second.ids[:101], few, salt=salt)
    assert found(pair, base) == (oracle.generated(base), 70 // BLOCK * BLOCK)
    assert found(pair, plain) == (oracle.generated(plain), 0)
    assert found(pair, second) == (oracle.generated(second), 101 // BLOCK * BLOCK), "what the base has read"
    assert found(pair, second) == (oracle.generated(second), (len(second.ids) - 1) // BLOCK * BLOCK)
    stranger = Asked(second.ids, answer, salt="another")
    assert found(pair, stranger) == (oracle.generated(second), 0)
    assert found(pair, Asked(second.ids, answer)) == (oracle.generated(second), 0), "without a salt, nobody's"


def found(pair: Pair, asked: Asked) -> tuple[list[int], int]:
    """Its answer, and how many of its prompt's tokens were in the prefix cache."""
    engine, outputs = pair.vllm.engine, []
    admitted(engine, asked)
    while not outputs:
        outputs = [output for output in engine.owner.run(engine.step) if output.finished]
    if asked.wearable is not None:
        give(engine, asked.wearable.name)
    return list(outputs[0].outputs[0].token_ids), outputs[0].num_cached_tokens


def test_more_starts_in_a_step_than_requests_it_can_hold(pair: Pair) -> None:
    """Each request is two runs of tokens: 40 of them are more runs than vLLM has room for requests."""
    answer, oracle = wardrobe(pair)[2], Peft(pair.path)
    rng = np.random.default_rng(5)
    requests = [Asked(invoked(rng, 2, INVOCATION, 0), answer, count=3) for _ in range(40)]
    assert served(pair.vllm.engine, requests) == [oracle.generated(asked) for asked in requests]


def test_a_request_that_is_put_back_and_read_again_starts_where_it_did(pair: Pair) -> None:
    """More tokens than the engine has blocks for: vLLM drops a running request's keys and reads it anew, what it has
    answered too."""
    engine, oracle = pair.vllm.engine, Peft(pair.path)
    scheduler = engine._llm.llm_engine.engine_core.engine_core.scheduler
    room = scheduler.kv_cache_manager.block_pool.num_gpu_blocks
    rng = np.random.default_rng(6)
    worn = [wardrobe(pair)[n % 3] for n in range(2 * room // 3)]  # a block each at first, three at last
    requests = [Asked(invoked(rng, 20, INVOCATION, 5), w, count=60) for w in worn]
    assert {asked.start for asked in requests} == {0, 20}
    names = [admitted(engine, asked) for asked in requests]
    preempted, outputs = 0, {}
    while len(outputs) < len(names):
        outputs |= step(engine)
        preempted += sum(r.num_preemptions for r in scheduler.running)
    give(engine, *(asked.wearable.name for asked in requests))
    assert preempted > 0, "nothing was put back: the test says nothing"
    assert [outputs[name] for name in names] == [oracle.generated(asked) for asked in requests]
