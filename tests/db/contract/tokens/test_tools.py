"""Tool calls, answers to them and names: the text is transformers' own, and a base that does not show them says so."""

import json
from dataclasses import replace

import pytest

from db.contract.rows.files import parse
from db.contract.rows.formats import Chat, Message
from db.contract.tokens import chat_template
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import Unencodable, encode
from tests.bases import TEMPLATE
from tests.db.contract.conftest import fast_tokenizer
from tests.templates import MISTRAL, NAMES, QWEN

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {"é": {}}}}}
    for name in ("look_up", "add")
]
USER = {"role": "user", "content": "great film?"}


def _call(name: str, arguments: object, id: str) -> dict[str, object]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _messages(as_text: bool) -> list[dict[str, object]]:
    """Two calls at once, their answers, a call after words, and an end in words."""
    given = [{"title": "é <b>", "n": [1, 2.5, None]}, {}, {"x": {"y": True}}]
    one, two, three = (json.dumps(a) if as_text else a for a in given)
    return [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [_call("look_up", one, "c1"), _call("add", two, "c2")]},
        {"role": "tool", "content": "story", "tool_call_id": "c1"},
        {"role": "tool", "content": "7", "tool_call_id": "c2"},
        {"role": "assistant", "content": "one more", "tool_calls": [_call("add", three, "c3")]},
        {"role": "tool", "content": "8", "tool_call_id": "c3"},
        {"role": "assistant", "content": "It is great."},
    ]


def _row(*messages: dict[str, object], **top: object) -> Chat:
    (row,) = parse([json.dumps({"messages": messages, **top}).encode()])
    assert isinstance(row, Chat)
    return row


def _scored(base: Base, row: Chat) -> str:
    return base.tokenizer.decode(list(encode(base, row).candidates[0][2]), skip_special_tokens=False)


@pytest.mark.parametrize("template", [QWEN, MISTRAL], ids=["qwen", "mistral"])
def test_the_ids_are_transformers_own(llama: Base, template: str):
    base = replace(llama, chat_template=template, context=4096)
    tokenizer = fast_tokenizer(base.path)
    kept, tokenizer.chat_template = tokenizer.chat_template, template
    try:
        whole = tokenizer.apply_chat_template(_messages(as_text=False), tools=TOOLS, tokenize=True, return_dict=True)
    finally:
        tokenizer.chat_template = kept
    found = encode(base, _row(*_messages(as_text=True), tools=TOOLS))
    _, positions, targets = found.candidates[0]
    assert found.sequences[0] == tuple(whole["input_ids"][: positions[-1] + 1])
    assert targets == tuple(whole["input_ids"][p + 1] for p in positions)


def test_of_tool_turns_the_words_the_calls_and_the_end_are_learned(qwen2: Base, llama: Base):
    row = _row(*_messages(as_text=True), tools=TOOLS)
    assert _scored(replace(qwen2, chat_template=QWEN, context=4096), row) == (
        '<tool_call>\n{"name": "look_up", "arguments": {"title": "é <b>", "n": [1, 2.5, null]}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call><|end|>'
        'one more\n<tool_call>\n{"name": "add", "arguments": {"x": {"y": true}}}\n</tool_call><|end|>'
        "It is great.<|end|>"
    )
    # The special token that begins the calls does not end the turn.
    assert _scored(replace(llama, chat_template=MISTRAL, context=4096), _row(*_messages(as_text=True)[:2])) == (
        '<unk>[{"name": "look_up", "arguments": {"title": "é <b>", "n": [1, 2.5, null]}}, '
        '{"name": "add", "arguments": {}}]</s>'
    )


def test_weight_0_leaves_a_call_in_the_text_but_unscored(qwen2: Base):
    base = replace(qwen2, chat_template=QWEN, context=4096)
    turns = _messages(as_text=True)
    unscored = [turn | ({"weight": 0} if "tool_calls" in turn else {}) for turn in turns]
    assert _scored(base, _row(*unscored, tools=TOOLS)) == "It is great.<|end|>"
    assert encode(base, _row(*unscored, tools=TOOLS)).sequences == encode(base, _row(*turns, tools=TOOLS)).sequences


def test_the_deprecated_writing_means_the_same(qwen2: Base):
    base = replace(qwen2, chat_template=QWEN, context=4096)
    called = {"name": "add", "arguments": '{"x": 1}'}
    calls = [{"id": "1", "type": "function", "function": called}]
    new = _row(
        USER, {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "2"}, {"role": "assistant", "content": "two"}, tools=TOOLS,
    )  # fmt: skip
    old = _row(
        USER, {"role": "assistant", "content": None, "function_call": called},
        {"role": "function", "name": "add", "content": "2"}, {"role": "assistant", "content": "two"},
        functions=[tool["function"] for tool in TOOLS],
    )  # fmt: skip
    assert encode(base, old) == encode(base, new)


SILENT = QWEN.replace("'\n<tool_response>\n' + m.content + '\n</tool_response>'", "''")
FIRST = QWEN.replace("for call in m.tool_calls", "for call in m.tool_calls[:1]")


@pytest.mark.parametrize(
    "template, upto, tools, left_out",
    [
        (TEMPLATE, 7, True, "its chat template leaves tools out"),
        (TEMPLATE, 2, False, "its chat template leaves tool_calls out"),
        (SILENT, 7, True, "its chat template leaves messages of role tool out"),
        (FIRST, 2, False, "leaves the call of 'add' in messages\\[1\\] out"),
    ],
)
def test_a_base_that_does_not_show_tools_is_named(qwen2: Base, template: str, upto: int, tools: bool, left_out: str):
    row = _row(*_messages(as_text=True)[:upto], tools=TOOLS if tools else [])
    with pytest.raises(Unencodable, match=f"tiny-qwen2.*{left_out}"):
        encode(replace(qwen2, chat_template=template, context=4096), row)


def test_tools_after_the_last_scored_turn_do_not_matter(qwen2: Base):
    row = _row(USER, {"role": "assistant", "content": "yes"}, USER, {**_messages(as_text=True)[1], "weight": 0})
    assert encode(qwen2, row) == encode(qwen2, Chat(row.messages[:2]))


def test_a_name_is_in_the_text_where_the_template_has_it(qwen2: Base):
    row = Chat((Message("user", "u", False, "Anna"), Message("assistant", "a", True, "Ben")))
    assert "user name=Anna\n" in chat_template.text(replace(qwen2, chat_template=NAMES), row)
    bare = Chat(tuple(replace(m, name=None) for m in row.messages))
    assert encode(replace(qwen2, chat_template=QWEN), row) == encode(replace(qwen2, chat_template=QWEN), bare)
