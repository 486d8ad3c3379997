"""What the unmodified openai client gets from a worker's port, on the real engine."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

from db.contract.rows.formats import Chat, Message
from db.contract.tokens import chat_template
from db.contract.tokens.base_model import Base, load
from db.settings import Settings
from tests.worker.scoring.cases import INVOCATION, activated, layout, probe
from tests.worker.scoring.conftest import MAX_TOKENS, Pair
from tests.worker.serving.generated import Asked, Peft
from tests.worker.serving.house import MESSAGES, House, opened
from worker.serving.asks import ASKED, Ask
from worker.types import Wearable

ONE = pytest.mark.parametrize("pair", ["llama-tied"], indirect=True)
HALF = "\ufffd"
LONG: Any = [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 4}]


@pytest.fixture
def house(pair: Pair) -> Iterator[House]:
    with opened(pair) as made:
        yield made


def base(pair: Pair) -> Base:
    return load("tiny", Settings(models={"tiny": str(pair.path)}))


def ids(house: House, messages: Any, **more: Any) -> list[int]:
    """The tokens of a prompt as the worker renders it."""

    async def rendered() -> list[int]:
        ASKED.set(Ask("req", "salt"))
        request = ChatCompletionRequest(messages=messages, **more)
        _, (prompt,) = await house.serving._openai._chat.render_chat_request(request)
        return list(prompt["prompt_token_ids"])

    return asyncio.run(rendered())


def content(answer: Any, number: int = 0) -> str:
    found = answer.choices[number].message.content
    assert found is not None
    return str(found)


CONVERSATIONS = [
    [("user", "What is the capital of France?")],
    [("system", "Answer in one word."), ("user", "great or terrible? ")],
    [("user", " a\n"), ("assistant", "b"), ("user", "<|end|> <s> é \U0001f98a"), ("assistant", ""), ("user", "0")],
]


@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_the_worker_renders_what_training_renders(house: House, turns: list[tuple[str, str]]) -> None:
    """Two programs, the same tokens: on every base."""
    chat = Chat(tuple(Message(role, text, False) for role, text in turns))
    of = base(house.pair)
    expected = of.tokenizer.encode(chat_template.render(of, chat, prompt=True), add_special_tokens=False).ids
    assert ids(house, [{"role": role, "content": text} for role, text in turns]) == expected


def test_an_answer_is_what_transformers_and_peft_say(house: House) -> None:
    """Greedy, of the base and of an adapter, over HTTP: on every base."""
    rng = np.random.default_rng(21)
    shape = layout(house.pair.modules, 8, 16.0, "q_proj", "v_proj")
    worn = Wearable("ftjob-said@7", shape, probe(rng, shape))
    house.closet.worn[worn.name] = worn
    prompt, peft, client = ids(house, MESSAGES), Peft(house.pair.path), house.dialled()
    answers = []
    for name, wearable in (("base", None), (worn.name, worn)):
        answer = client.chat.completions.create(
            model=name, messages=MESSAGES, max_tokens=12, temperature=0, logprobs=True, logit_bias={}
        )
        said = peft.generated(Asked(tuple(prompt), wearable, 12))
        stop = base(house.pair).tokenizer.token_to_id("<|end|>" if "qwen2" in house.pair.path.name else "</s>")
        said = said[: said.index(stop)] if stop in said else said
        text = base(house.pair).tokenizer.decode(said)
        assert content(answer).rstrip(HALF) == text.rstrip(HALF)  # the last character may want more tokens
        assert answer.model == ("tiny" if wearable is None else worn.name)
        answers.append(content(answer))
    assert answers[0] != answers[1], "the adapter must matter"
    assert worn.name in house.serving.load["held"]  # the engine is the session's: others may have worn theirs
    house.rested()
    assert house.taken == ()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@ONE
def test_it_is_dialled_by_either_kind_of_address(pair: Pair) -> None:
    for address, host in (("::1", "[::1]"), ("127.0.0.1", "127.0.0.1")):
        with opened(pair, serve_address=address) as house:
            assert house.url.startswith(f"http://{host}:")
            about: Any = {"model": "base", "messages": MESSAGES, "max_tokens": 1}
            assert house.dialled().chat.completions.create(**about).choices[0].finish_reason
            house.rested()


@ONE
def test_a_chat_has_its_usage_and_an_end(house: House) -> None:
    answer = house.dialled().chat.completions.create(model="base", messages=MESSAGES, max_tokens=5, seed=3)
    assert answer.object == "chat.completion"
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(ids(house, MESSAGES))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    raw = house.posted({"model": "base", "messages": MESSAGES, "max_tokens": 3}).json()
    assert set(raw) == {"id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage"}
    assert set(raw["choices"][0]) == {"index", "message", "logprobs", "finish_reason"}


@ONE
def test_a_stream_is_the_answer_in_parts(house: House) -> None:
    about: dict[str, Any] = {"model": "base", "messages": MESSAGES, "max_tokens": 20, "seed": 5}
    client = house.dialled()
    whole = client.chat.completions.create(**about)
    parts = list(client.chat.completions.create(**about, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.delta.content or "" for part in parts for c in part.choices) == content(whole)
    assert [c.finish_reason for part in parts for c in part.choices][-1] == whole.choices[0].finish_reason
    usage = [part.usage for part in parts if part.usage is not None]
    assert [u.completion_tokens for u in usage] == [whole.usage and whole.usage.completion_tokens]
    assert [part.usage for part in client.chat.completions.create(**about, stream=True)] == [None] * (len(parts) - 1)


@ONE
def test_completions_of_several_prompts(house: House) -> None:
    prompts, client = ["the film", "yes and"], house.dialled()
    answer = client.completions.create(model="base", prompt=prompts, max_tokens=4, echo=True, logprobs=2, temperature=0)
    assert [c.text.startswith(p) for c, p in zip(answer.choices, prompts, strict=True)] == [True, True]
    alone = client.completions.create(model="base", prompt=prompts[1], max_tokens=4, temperature=0)
    assert answer.choices[1].text == prompts[1] + alone.choices[0].text
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.token_logprobs is not None
    assert found.token_logprobs[0] is None
    assert all(p < 0 for p in found.token_logprobs[1:] if p is not None)
    stream = client.completions.create(model="base", prompt=prompts[1], max_tokens=4, temperature=0, stream=True)
    assert "".join(part.choices[0].text for part in stream) == alone.choices[0].text
    tokens = base(house.pair).encode(prompts[1])
    by_ids = client.completions.create(model="base", prompt=tokens, max_tokens=4, temperature=0)
    assert by_ids.choices[0].text == alone.choices[0].text


@ONE
def test_logprobs_are_those_of_the_engine(house: House) -> None:
    answer = house.dialled().chat.completions.create(
        model="base", messages=MESSAGES, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3
    )
    found = answer.choices[0].logprobs
    assert found is not None
    for token in found.content or ():
        best = [top.logprob for top in token.top_logprobs]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        assert token.logprob == best[0], "greedy"


@ONE
def test_several_choices_and_seeds(house: House) -> None:
    client, about = house.dialled(), {"model": "base", "messages": MESSAGES, "max_tokens": 16}
    create: Any = client.chat.completions.create
    several = create(**about, n=3, seed=9)
    texts = [content(several, n) for n in range(3)]
    assert len(set(texts)) == 3
    assert [c.index for c in several.choices] == [0, 1, 2]
    assert [content(create(**about, n=3, seed=9), n) for n in range(3)] == texts
    assert content(create(**about)) != content(create(**about)), "the system seeds what nobody seeds"
    greedy = create(**about, n=2, temperature=0)
    assert content(greedy, 0) == content(greedy, 1) == content(create(**about, temperature=0))
    for extreme in (2**63 - 1, -(2**63), -1):
        assert content(create(**about, n=2, seed=extreme)) == content(create(**about, n=2, seed=extreme))
    parts = list(create(**about, n=2, seed=4, stream=True))
    assert {c.index for part in parts for c in part.choices} == {0, 1}


@ONE
def test_a_stop_is_not_said(house: House) -> None:
    create: Any = house.dialled().completions.create
    about = {"model": "base", "prompt": "The", "temperature": 0, "max_tokens": 24}
    whole = create(**about).choices[0].text
    stop = whole[len(whole) // 2 :][:2]
    cut = create(**about, stop=[stop])
    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


@ONE
def test_an_answer_is_held_to_its_schema(house: House) -> None:
    schema = {
        "type": "object", "additionalProperties": False, "required": ["film", "stars"],
        "properties": {"film": {"enum": ["great", "bad"]}, "stars": {"enum": [1, 2, 3]}},
    }  # fmt: skip
    form: Any = {"type": "json_schema", "json_schema": {"name": "review", "schema": schema, "strict": True}}
    for seed in range(3):
        answer = house.dialled().chat.completions.create(
            model="base", messages=MESSAGES, max_tokens=200, seed=seed, response_format=form
        )
        said = json.loads(content(answer))
        assert said["film"] in ("great", "bad")
        assert said["stars"] in (1, 2, 3)
    house.rested()


@ONE
def test_prompts_are_shared_within_a_salt_only(house: House) -> None:
    def cached(salt: str) -> int:
        about: Any = {"model": "base", "messages": LONG, "max_tokens": 1}
        usage = house.dialled(salt).chat.completions.create(**about).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        return usage.prompt_tokens_details.cached_tokens or 0

    assert cached("one") == 0
    assert cached("one") > 0
    assert cached("two") == 0
    assert cached("two") > 0


@ONE
def test_an_adapter_that_never_acts_is_refused_by_the_text_it_wants(house: House) -> None:
    shape = activated(layout(house.pair.modules, 8, 16.0, "q_proj", "v_proj"))
    worn = Wearable("ftjob-acts@1", shape, probe(np.random.default_rng(3), shape))
    house.closet.worn[worn.name] = worn
    client, text = house.dialled(), base(house.pair).tokenizer.decode(list(INVOCATION), skip_special_tokens=False)
    with pytest.raises(openai.BadRequestError, match="does not") as missing:
        client.completions.create(model=worn.name, prompt="The film", max_tokens=2)
    assert missing.value.code == "invocation_missing"
    assert repr(text) in missing.value.message
    prompt = [5, 6, 7, *INVOCATION, 8]
    peft = Peft(house.pair.path)
    answer = client.completions.create(
        model=worn.name, prompt=prompt, max_tokens=8, temperature=0, logit_bias={"2": -100}
    )
    said = peft.generated(Asked(tuple(prompt), worn, 8))
    if 2 not in said:
        assert answer.choices[0].text.rstrip(HALF) == base(house.pair).tokenizer.decode(said).rstrip(HALF)


@ONE
def test_a_seed_says_the_same_however_its_prompt_is_read(house: House) -> None:
    """In two steps, the first sampled in vain; and in one, what came before found in the cache."""
    about: Any = {"model": "base", "prompt": [7 + n % 400 for n in range(200)], "max_tokens": 16, "seed": 12}
    answers = [house.dialled("chunks").completions.create(**about) for _ in range(2)]
    cached = [
        a.usage and a.usage.prompt_tokens_details and a.usage.prompt_tokens_details.cached_tokens for a in answers
    ]
    assert cached[0] == 0
    assert 200 - (cached[1] or 0) <= MAX_TOKENS, "it was read in one step"
    assert answers[0].choices[0].text == answers[1].choices[0].text
    other = house.dialled("chunks").completions.create(**about | {"seed": 13})
    assert other.choices[0].text != answers[0].choices[0].text
