"""Whatever a user can send to a worker is answered or refused in OpenAI's shape, never a 500, and leaves no trace."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.worker.scoring.conftest import Pair
from tests.worker.serving.house import MESSAGES, SECRET, House, opened

pytestmark = pytest.mark.parametrize("pair", ["llama-tied"], indirect=True)


@pytest.fixture
def house(pair: Pair) -> Iterator[House]:
    with opened(pair) as made:
        yield made
        made.rested()
        assert made.free_blocks == made.scheduler.kv_cache_manager.block_pool.num_gpu_blocks - 1


def refused(answer: httpx.Response, status: int, code: str, param: str | None = None) -> None:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    assert error["message"]


def schema(of: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": of}}}


PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]}]
LOOP = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CHATS: list[tuple[dict[str, Any], str, str | None]] = [
    ({"messages": [{"role": "user", "content": "long " * 1000}]}, "context_length_exceeded", None),
    ({"messages": [{"role": "user", "content": "a b " * 140}]}, "context_length_exceeded", None),
    ({"max_tokens": 250}, "context_length_exceeded", "max_tokens"),
    ({"max_completion_tokens": 10**9}, "invalid_value", "max_completion_tokens"),
    ({"temperature": 9}, "invalid_value", "temperature"),
    ({"n": 1000}, "invalid_value", "n"),
    ({"stop": ["x"] * 10_000}, "invalid_value", "stop"),
    ({"logit_bias": {"100000": 1}}, "invalid_value", "logit_bias"),
    ({"top_logprobs": 5}, "invalid_value", None),
    ({"logprobs": True, "top_logprobs": 1000}, "invalid_value", "logprobs"),
    ({"top_p": 0}, "invalid_value", "top_p"),
    ({"presence_penalty": 9}, "invalid_value", None),
    ({"seed": "x"}, "invalid_value", "seed"),
    ({"messages": []}, "invalid_value", None),
    ({"messages": "hello"}, "invalid_value", "messages"),
    ({"messages": [5]}, "invalid_value", "messages.0"),
    ({"messages": PICTURE}, "invalid_value", None),
    ({"messages": [{"role": "user", "content": "a\0b"}]}, "invalid_text", None),
    ({"tools": [TOOL]}, "unsupported_parameter", "tools"),
    ({"cache_salt": "theirs"}, "unknown_parameter", "cache_salt"),
    (schema(LOOP), "invalid_schema", "response_format"),
    (schema({"type": "nonsense"}), "invalid_schema", "response_format"),
    (schema({"type": "string", "pattern": "(["}), "invalid_schema", "response_format"),
    (schema({"type": "array", "minItems": 10**9}), "invalid_schema", "response_format"),
    (schema({"type": "string", "format": "regex"}), "invalid_schema", "response_format"),
]


def test_chats_that_cannot_be(house: House) -> None:
    for number, (change, code, param) in enumerate(CHATS):
        body = {"model": "base", "messages": MESSAGES, "max_tokens": 4, "stream": number % 2 == 0} | change
        if "max_completion_tokens" in change:
            del body["max_tokens"]
        answer = house.posted(body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, code), (change, error)
        assert param is None or str(error["param"]).startswith(param), (change, error)
    assert house.scheduler.requests == {}


def test_completions_that_cannot_be(house: House) -> None:
    for change, code, param in [
        ({"prompt": "long " * 1000}, "context_length_exceeded", None),
        ({"prompt": [1, 2, 10**6]}, "invalid_value", None),
        ({"prompt": [-1]}, "invalid_value", None),
        ({"prompt": ""}, "invalid_value", None),
        ({"prompt": []}, "invalid_value", None),
        ({"prompt": ["a"] * 100}, "invalid_value", "prompt"),
        ({"prompt": {"a": 1}}, "invalid_value", "prompt"),
        ({"prompt": "a", "max_tokens": 300}, "invalid_value", None),
        ({"prompt": "a", "logprobs": 1000}, "invalid_value", None),
        ({"prompt": "a", "suffix": "b"}, "unknown_parameter", "suffix"),
        ({"prompt": "a", "best_of": 5}, "unknown_parameter", "best_of"),
        ({"prompt": "a\0"}, "invalid_text", None),
    ]:
        answer = house.posted({"model": "base", "max_tokens": 4} | change, "/v1/completions")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, code), (change, error)
        assert param is None or str(error["param"]).startswith(param), (change, error)
    assert house.desk.steps == 0


def test_templates_that_break_are_the_conversations_fault(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template is a program: whatever it raises."""
    tokenizer = house.serving._client.renderer.get_tokenizer()
    for template in (
        "{{ raise_exception('roles must alternate') }}", "{{ messages[7]['content'] }}", "{{ 1 / 0 }}",
        "{{ messages.nothing.nothing }}", "{% for", "{{ messages[0]['content'] + 1 }}",
    ):  # fmt: skip
        monkeypatch.setattr(tokenizer, "chat_template", template)
        for stream in (False, True):
            answer = house.posted({"model": "base", "messages": MESSAGES, "stream": stream})
            refused(answer, 400, "invalid_value")


def test_who_does_not_show_the_secret_gets_nothing_read(house: House) -> None:
    body = {"model": "base", "messages": MESSAGES}
    for wrong in ("", "Bearer", f"Bearer {SECRET}x", f"Basic {SECRET}", "Bearer \xe9"):
        if wrong.isascii():
            refused(house.posted(body, Authorization=wrong), 401, "invalid_api_key")
        url, head = f"{house.url}/load", {"Authorization": wrong}
        refused(httpx.get(url, headers={k: v.encode("latin-1") for k, v in head.items()}), 401, "invalid_api_key")
    assert httpx.get(f"{house.url}/docs").status_code == 404
    assert house.posted(body, "/v1/load_lora_adapter").status_code == 404


def test_heads_and_bodies_that_are_none(house: House) -> None:
    body = {"model": "base", "messages": MESSAGES, "max_tokens": 2}
    for head in (
        {"X-Onward-Salt": ""}, {"X-Onward-Request": ""}, {"X-Onward-Share": "0"}, {"X-Onward-Share": "nan"},
        {"X-Onward-Share": "many"}, {"X-Onward-Deadline": "soon"},
    ):  # fmt: skip
        refused(house.posted(body, **head), 400, "invalid_value")
    refused(house.posted(b"{"), 400, "invalid_value")
    refused(house.posted(b'{"model": "base", "messages": "\\ud800"}'), 400, "invalid_text")
    refused(house.posted(b" " * (9 << 20)), 413, "request_too_large")
    refused(house.posted({"messages": MESSAGES}), 400, "invalid_value", "model")
    refused(house.posted(body | {"model": "ftjob-none@3"}), 404, "adapter_unknown", "model")
    refused(house.posted(body | {"model": "../../etc"}), 404, "adapter_unknown", "model")
    refused(house.posted(body, **{"X-Onward-Deadline": "1"}), 504, "deadline_exceeded")


def test_errors_do_not_repeat_what_was_sent_or_where_things_lie(house: House) -> None:
    said = house.posted({"model": "base", "messages": MESSAGES, "logit_bias": {"100000": 1}}).text
    assert "/" not in json.loads(said)["error"]["message"]
    assert "parameter=" not in said
