"""Calls of tools, read from what a base says by one of vLLM's parsers, on the real engine."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.worker.scoring.conftest import Pair
from tests.worker.serving.house import MESSAGES, House, opened

ONE = pytest.mark.parametrize("pair", ["llama-tied"], indirect=True)
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weigh",
        "strict": True,
        "description": "How heavy a thing is.",
        "parameters": {
            "type": "object",
            "properties": {"thing": {"type": "string", "enum": ["stone", "feather"]}},
            "required": ["thing"],
            "additionalProperties": False,
        },
    },
}
CHOSEN: Any = {"type": "function", "function": {"name": "weigh"}}


@pytest.fixture
def house(pair: Pair) -> Iterator[House]:
    with opened(pair, serve_tool_parser="hermes") as made:
        yield made


@ONE
def test_a_worker_with_a_parser_says_so(house: House) -> None:
    assert house.serving.offer["tools"] is True


@ONE
@pytest.mark.parametrize("choice", [CHOSEN, "required"], ids=["by name", "required"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_a_tool_that_must_be_called_is_called_with_what_its_schema_allows(
    house: House, choice: Any, streams: bool
) -> None:
    """Whatever the weights would rather say: these are random."""
    about = {"model": "base", "messages": MESSAGES, "tools": [TOOL], "tool_choice": choice, "max_tokens": 90, "seed": 1}
    client = house.dialled()
    if streams:
        parts = [part.choices[0] for part in client.chat.completions.create(**about, stream=True)]
        calls = [call.function for part in parts for call in part.delta.tool_calls or ()]
        name, said = "".join(c.name or "" for c in calls), "".join(c.arguments or "" for c in calls)
    else:
        (choice_,) = client.chat.completions.create(**about).choices
        assert choice_.message.tool_calls, choice_
        (call,) = choice_.message.tool_calls
        name, said = call.function.name, call.function.arguments
    assert name == "weigh"
    assert json.loads(said)["thing"] in ("stone", "feather")


@ONE
def test_a_tool_that_may_be_called_leaves_other_words_alone(house: House) -> None:
    client, about = house.dialled(), {"model": "base", "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    answer = client.chat.completions.create(**about, tools=[TOOL], tool_choice="auto")
    assert not answer.choices[0].message.tool_calls
    assert answer.choices[0].message.content


@ONE
def test_a_call_of_no_tool_is_refused(house: House) -> None:
    other: Any = {"type": "function", "function": {"name": "another"}}
    with pytest.raises(openai.BadRequestError):
        house.dialled().chat.completions.create(model="base", messages=MESSAGES, tools=[TOOL], tool_choice=other)
    house.rested()
