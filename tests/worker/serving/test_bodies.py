"""What a body may say is settled before vLLM sees it."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.serving import bodies, schemas
from worker.serving.errors import Refused


@pytest.mark.parametrize(
    "body, says",
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff{}", "not UTF-8"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"a": ["\\ud800"]}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_body(body: bytes, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        bodies.parsed(body)
    assert refused.value.status == 400


def test_whole_surrogate_pairs_are_text() -> None:
    assert bodies.parsed(b'{"a": "\\ud83e\\udd8a"}') == {"a": "\U0001f98a"}


@pytest.mark.parametrize(
    "said, param",
    [
        ({"cache_salt": "mine"}, "cache_salt"),
        ({"priority": -1}, "priority"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"vllm_xargs": {}}, "vllm_xargs"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"temperature": 9}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"stop": [str(i) for i in range(10_000)]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x" * 1000]}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logit_bias": {str(i): 1 for i in range(5000)}}, "logit_bias"),
        ({"response_format": {"type": "structural_tag"}}, "response_format"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
    ],
)
def test_what_is_refused_by_name(said: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as refused:
        bodies.fields(said, bodies.CHAT)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_every_request_is_seeded_and_no_seed_leaves_64_bits() -> None:
    seeds = {bodies.fields({}, bodies.CHAT)["seed"] for _ in range(20)}
    assert len(seeds) == 20
    for seed in (0, -1, 2**63 - 1, -(2**63)):
        kept = bodies.fields({"seed": seed}, bodies.CHAT)["seed"]
        assert 0 <= kept < bodies.SEEDS
        assert kept == bodies.fields({"seed": seed}, bodies.CHAT)["seed"]
    assert bodies.fields({"seed": "x"}, bodies.CHAT)["seed"] == "x", "its type is vLLM's to refuse"


def test_only_openais_options_of_a_stream_are_passed_on() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    assert bodies.fields({"stream": True, "stream_options": options}, bodies.CHAT)["stream_options"] == {
        "include_usage": True
    }
    assert "stream_options" not in bodies.fields({"stream_options": options}, bodies.CHAT)


@pytest.mark.parametrize(
    "schema, says",
    [
        (5, "not an object"),
        ({"type": "array", "minItems": 10**9}, "minItems"),
        ({"type": "string", "maxLength": 10**6}, "maxLength"),
        ({"items": {"items": {"maxItems": 100}, "maxItems": 100}, "maxItems": 100}, "maxItems"),
        ({"type": "string", "pattern": "(a{50}){50}"}, "repeats"),
        ({"type": "string", "pattern": "[^x]{0,99999999999999}"}, "repeats"),
        ({"items": {"pattern": "a{10}"}, "maxItems": 100}, "repeats"),
        ({"type": "string", "pattern": "a" * 1000}, "longer"),
        ({"enum": [str(i) for i in range(1200)]}, "alternatives"),
        ({"properties": {f"p{i}": {"type": "string"} for i in range(1000)}}, "parts"),
        (json.loads('{"items":' * 40 + "{}" + "}" * 40), "deeper"),
        ({"enum": ["x" * 100_000]}, "text"),
    ],
)
def test_schemas_that_explode_are_told_before_they_do(schema: Any, says: str) -> None:
    why = schemas.fault(schema)
    assert why is not None
    assert says in why


def test_schemas_of_a_usual_size_are_taken() -> None:
    item = {"type": "object", "properties": {f"p{i}": {"type": "string", "maxLength": 200} for i in range(50)}}
    assert schemas.fault({"type": "array", "maxItems": 10, "items": item}) is None
    assert schemas.fault({"type": "string", "pattern": "^[a-z]{2,40}@[a-z]{2,40}$"}) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(bodies.CHAT)) | st.text(max_size=5), VALUES, max_size=6))
def test_no_value_of_any_field_ends_otherwise_than_refused(said: dict[str, Any]) -> None:
    with contextlib.suppress(Refused):
        bodies.fields(said, bodies.CHAT)
