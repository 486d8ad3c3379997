"""Training files: what is taken, what is refused, and how the refusal reads."""

import hashlib
import json
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.contract.rows.files import Report, check, parse
from db.contract.rows.formats import Chat, Choice, Completion, Message, Row
from db.contract.rows.jsonl import BadRow, BadRows, Limits

CHOICE = {"prompt": "p", "choices": [" a", " b"], "label": 1}
COMPLETION = {"prompt": "p", "completion": " c"}
CHAT = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}


def _jsonl(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _chat(*messages: object) -> bytes:
    return _jsonl({"messages": list(messages)})


USER, ASSISTANT = CHAT["messages"]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
filled = text.filter(bool)
completions = st.builds(Completion, text, filled)
choices = st.lists(filled, min_size=2, max_size=5, unique=True).flatmap(
    lambda found: st.builds(Choice, text, st.just(tuple(found)), st.integers(0, len(found) - 1))
)
said = text.filter(str.strip)
arguments = st.dictionaries(
    text, text | st.integers(-9, 9) | st.none() | st.lists(st.booleans(), max_size=2), max_size=3
)
calls = st.builds(
    lambda name, given: {"id": "c", "type": "function", "function": {"name": name, "arguments": given}},
    filled,
    arguments,
)
names = st.none() | text
turns = st.builds(Message, st.sampled_from(["system", "user"]), text, st.just(False), names) | st.builds(
    Message, st.just("assistant"), said, st.booleans(), names, st.lists(calls, max_size=2).map(tuple)
)
tools = st.builds(lambda name: {"type": "function", "function": {"name": name}}, filled)
ASKED = Message("user", "u", False)
CALLED = Message(
    "assistant", "", True, None, ({"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}},)
)
ANSWERED = Message("tool", "found", False, None, (), "c")
chats = st.builds(
    lambda turns, tools, opening: Chat((ASKED, *opening, *turns), tuple(tools)),
    st.lists(turns, min_size=1, max_size=5).filter(lambda t: any(m.scored for m in t)),
    st.lists(tools, max_size=2),
    st.sampled_from([(), (CALLED,), (CALLED, ANSWERED)]),
)


# What says nothing, wherever it stands.
beside = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(-(10**30), 10**30),
        "metadata": st.dictionaries(text, text, max_size=2),
        "tool_choice": st.just("auto"),
    },
)
nulls = st.fixed_dictionaries(
    {}, optional={key: st.none() for key in ("name", "audio", "function_call", "weight", "odd")}
)
written = st.fixed_dictionaries({"parts": st.booleans(), "developer": st.booleans(), "deprecated": st.booleans()})


def _json(row: Row, style: dict[str, bool], empty: dict[str, None]) -> dict[str, object]:
    if isinstance(row, Completion):
        return {"prompt": row.prompt, "completion": row.completion}
    if isinstance(row, Choice):
        return {"prompt": row.prompt, "choices": list(row.choices), "label": row.label}
    found = {"messages": [_turn(m, style, empty) for m in row.messages]}
    if style["deprecated"]:
        return {**found, "functions": [tool["function"] for tool in row.tools]}
    return {**found, "tools": list(row.tools) or None, "parallel_tool_calls": True}


def _turn(m: Message, style: dict[str, bool], empty: dict[str, None]) -> dict[str, object]:
    role = "developer" if m.role == "system" and style["developer"] else m.role
    half = len(m.content) // 2
    parts = [{"type": "text", "text": piece} for piece in (m.content[:half], m.content[half:])]
    turn = {**empty, "role": role, "content": parts if style["parts"] else m.content}
    if m.name is not None:
        turn["name"] = m.name
    if m.role == "assistant" and not (m.scored and "weight" in empty):
        turn["weight"] = int(m.scored)
    if m.calls:
        turn |= {"tool_calls": [_call(call) for call in m.calls], "content": turn["content"] if m.content else None}
    return turn | ({"tool_call_id": m.answers} if m.answers is not None else {})


def _call(call: dict[str, dict[str, object]]) -> dict[str, object]:
    return {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}


@given(
    rows=st.one_of(*(st.lists(kind, min_size=1, max_size=8) for kind in (completions, choices, chats))),
    ascii_only=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
    end=st.sampled_from(["", "\n", "\n\n  \n"]),
    cut=st.integers(1, 40),
    style=written,
    empty=nulls,
    more=beside,
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_good_rows_come_back_however_they_are_written_and_cut(
    rows, ascii_only, newline, end, cut, style, empty, more, mark
):
    values = [{**more, **_json(row, style, empty)} for row in rows]
    raw = mark + (newline.join(json.dumps(value, ensure_ascii=ascii_only) for value in values) + end).encode()
    chunks = [raw[i : i + cut] for i in range(0, len(raw), cut)]
    assert list(parse(chunks)) == rows
    kind = {Chat: "chat", Choice: "choice", Completion: "completion"}[type(rows[0])]
    repeated = len(rows) - len({repr(row) for row in rows})
    assert check(chunks) == Report(kind, len(rows), len(raw), hashlib.sha256(raw).hexdigest(), repeated)


def test_a_row_repeats_another_however_it_is_written():
    first, second = b'{"prompt": "a", "completion": "b"}', b'{ "completion":"\\u0062", "prompt":"a"}'
    other = b'{"prompt": "a", "completion": "c"}'
    assert check([b"\n".join([first, other, second, first])]).repeated == 2
    assert check([b"\n".join([first, other])]).repeated == 0


def _bad(chunks: list[bytes]) -> BadRow | None:
    try:
        check(chunks)
    except BadRow as bad:
        return bad
    return None


@given(raw=st.binary(max_size=200) | st.text().map(lambda t: t.encode("utf-8", "surrogatepass")), cut=st.integers(1, 9))
def test_any_bytes_that_are_no_rows_are_a_bad_row(raw, cut):
    bad = _bad([raw[i : i + cut] for i in range(0, len(raw), cut)])
    assert bad is not None
    assert 1 <= bad.line <= raw.count(b"\n") + 1
    assert str(bad) == f"Line {bad.line}: {bad.reason}"
    if isinstance(bad, BadRows):
        assert [row.line for row in bad.first] == sorted({row.line for row in bad.first})
        assert len(bad.first) == min(bad.count, 5)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(row=st.sampled_from([CHOICE, COMPLETION, CHAT]), data=st.data())
def test_a_row_with_one_value_replaced_is_a_report_or_a_bad_row(row, data):
    key = data.draw(st.sampled_from([*row, "extra", "\ud800"]))
    raw = _jsonl(row, {**row, key: data.draw(json_values)})
    bad = _bad([raw])
    assert bad is None or bad.line == 2
    if bad is not None:
        json.dumps([bad.reason, bad.param], ensure_ascii=False).encode()  # it can be sent


DEEP = b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b', "completion": "c"}'
REFUSED = {
    "empty": (b"", 1, None, "the file is empty"),
    "only newlines": (b"\n\n", 1, None, "the file is empty"),
    "bad UTF-8": (_jsonl(CHOICE) + b'{"prompt": "\xff"}', 2, None, "not valid UTF-8 at byte 13 of the line"),
    "UTF-16": ('{"prompt": "p"}'.encode("utf-16"), 1, None, "not valid UTF-8 at byte 1 of the line"),
    "byte-order mark inside": (_jsonl(CHOICE) + b"\xef\xbb\xbf" + _jsonl(CHOICE), 2, None, "byte-order mark"),
    "byte-order mark alone": (b"\xef\xbb\xbf\n", 1, None, "the file is empty"),
    "not JSON": (b'{"prompt": }\n', 1, None, "not valid JSON at column 12: Expecting value"),
    "two objects": (b"{} {}\n", 1, None, "not valid JSON at column 4: Extra data"),
    "NaN": (b'{"prompt": "p", "choices": ["a", "b"], "label": NaN}', 1, None, "NaN is not a JSON number"),
    "huge number": (b'{"label": ' + b"9" * 5000 + b"}", 1, None, "a number has more than 32 digits"),
    "nested too deeply": (DEEP, 1, None, "nested too deeply"),
    "an array": (b"[1]\n", 1, None, "must be a JSON object, not an array"),
    "null": (_jsonl(CHOICE, None), 2, None, "must be a JSON object, not null"),
    "a key twice": (b'{"prompt": "a", "prompt": "b", "completion": "c"}', 1, None, "the key 'prompt' is there twice"),
    "blank line": (_jsonl(CHOICE) + b" \n" + _jsonl(CHOICE), 2, None, "the line is blank"),
    "none of the keys": (_jsonl({"text": "t"}), 1, None, "has none of the keys of a row"),
    "mixed formats": (
        _jsonl(CHOICE, CHOICE, CHAT),
        3,
        None,
        "this row is of format chat, the rows before it are choice",
    ),
    "missing prompt": (_jsonl({"completion": "c"}), 1, "prompt", 'the key "prompt" is missing'),
    "missing completion": (_jsonl({"prompt": "c"}), 1, "completion", 'the key "completion" is missing'),
    "missing label": (_jsonl({"prompt": "c", "choices": ["a", "b"]}), 1, "label", 'the key "label" is missing'),
    "a key that means something elsewhere": (
        _jsonl({**COMPLETION, "weight": 1}),
        1,
        "weight",
        "weight belongs on an assistant message",
    ),
    "nested far": (_jsonl({**CHAT, "id": json.loads("[" * 65 + "]" * 65)}), 1, "id", "nested more than 64 deep"),
    "prompt of wrong type": (_jsonl({**CHOICE, "prompt": 3}), 1, "prompt", "prompt must be a string, not a number"),
    "empty completion": (_jsonl({**COMPLETION, "completion": ""}), 1, "completion", "must not be empty"),
    "half a surrogate pair": (b'{"prompt": "\\ud800", "completion": "c"}', 1, "prompt", "half of a surrogate pair"),
    "choices a string": (
        _jsonl({**CHOICE, "choices": "ab"}),
        1,
        "choices",
        "must be an array of strings, not a string",
    ),
    "one choice": (_jsonl({**CHOICE, "choices": ["a"]}), 1, "choices", "must hold 2 to 64 strings, not 1"),
    "65 choices": (_jsonl({**CHOICE, "choices": list(map(str, range(65)))}), 1, "choices", "2 to 64 strings, not 65"),
    "empty choice": (_jsonl({**CHOICE, "choices": ["a", ""]}), 1, "choices[1]", "choices[1] must not be empty"),
    "null choice": (_jsonl({**CHOICE, "choices": ["a", None]}), 1, "choices[1]", "must be a string, not null"),
    "repeated choice": (
        _jsonl({**CHOICE, "choices": ["a", "b", "a"]}),
        1,
        "choices[2]",
        "choices[2] repeats choices[0]",
    ),
    "label out of range": (
        _jsonl({**CHOICE, "label": 2}),
        1,
        "label",
        "label 2 is out of range: choices count from 0 to 1",
    ),
    "label negative": (_jsonl({**CHOICE, "label": -1}), 1, "label", "label -1 is out of range"),
    "label a text": (_jsonl({**CHOICE, "label": "1"}), 1, "label", "a whole number, not a string"),
    "label a boolean": (_jsonl({**CHOICE, "label": True}), 1, "label", "a whole number, not a boolean"),
    "label a fraction": (_jsonl({**CHOICE, "label": 1.0}), 1, "label", "a whole number"),
    "messages an object": (_jsonl({"messages": {}}), 1, "messages", "must be an array, not an object"),
    "no messages": (_chat(), 1, "messages", "must hold 1 to 1024 messages, not 0"),
    "message a string": (_chat("hi"), 1, "messages[0]", "must be an object, not a string"),
    "no assistant": (_chat(USER), 1, "messages", "must hold an assistant message"),
    "all weights 0": (_chat({**ASSISTANT, "weight": 0}), 1, "messages", "every assistant message has weight 0"),
    "weight 0.5": (_chat({**ASSISTANT, "weight": 0.5}), 1, "messages[0].weight", "must be 0 or 1"),
    "weight true": (_chat({**ASSISTANT, "weight": True}), 1, "messages[0].weight", "must be 0 or 1"),
    "weight an object": (_chat({**ASSISTANT, "weight": {}}), 1, "messages[0].weight", "must be 0 or 1"),
    "weight on a user": (_chat({**USER, "weight": 1}, ASSISTANT), 1, "messages[0].weight", "on an assistant message"),
    "unknown role": (
        _chat({**USER, "role": "critic"}),
        1,
        "messages[0].role",
        "one of system, developer, user, assistant, tool, function, not 'critic'",
    ),
    "role a list": (_chat({**USER, "role": []}), 1, "messages[0].role", "must be a string, not an array"),
    "an answer to nothing": (
        _chat(USER, {"role": "tool", "tool_call_id": "1", "content": ""}),
        1,
        "messages[1]",
        "answers a call with the id '1', and no message before it makes one",
    ),
    "a call without a name": (
        _chat(USER, {"role": "assistant", "function_call": {}}),
        1,
        "messages[1].function_call.name",
        "must be a string, not null",
    ),
    "tools in a completion": (_jsonl({**COMPLETION, "tools": [1]}), 1, "tools", "tools belong in a chat row"),
    "half a character in a tool": (
        _jsonl({**CHAT, "tools": [{"function": {"name": "f", "\ud800": 1}}]}),
        1,
        "tools",
        "half of a surrogate pair",
    ),
    "a number too large in a tool": (
        b'{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}],'
        b' "tools": [{"function": {"name": "f", "x": 1e999}}]}',
        1,
        "tools",
        "a number that is too large",
    ),
    "parts": (_chat({"role": "user", "content": []}), 1, "messages[0].content", "an array that holds a part"),
    "missing content": (_chat({"role": "user"}), 1, "messages[0].content", 'the key "messages[0].content" is missing'),
    "unknown key of a message": (_chat({**USER, "nme": "x"}), 1, "messages[0].nme", "unknown key 'messages[0].nme'"),
}


@pytest.mark.parametrize("raw, line, param, reason", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("cut", [7, 1 << 20])
def test_a_bad_row_says_where_and_why(raw: bytes, line: int, param: str | None, reason: str, cut: int):
    with pytest.raises(BadRow) as caught:
        check(raw[i : i + cut] for i in range(0, len(raw), cut))
    assert (caught.value.line, caught.value.param) == (line, param)
    assert reason in caught.value.reason


def test_the_first_five_bad_rows_are_told_with_the_count_of_all():
    bad, good = {**CHAT, "messages": []}, _jsonl(CHAT)
    raw = good + _jsonl(COMPLETION) + good + _jsonl(bad, bad) + b"{\n" + good + _jsonl(*[bad] * 300)
    with pytest.raises(BadRows) as caught:
        check([raw])
    assert ([row.line for row in caught.value.first], caught.value.count) == ([2, 4, 5, 6, 8], 304)
    assert str(caught.value) == (
        "Line 2: this row is of format completion, the rows before it are chat; "
        "line 4: messages must hold 1 to 1024 messages, not 0 (so are lines 5, 8); "
        "line 6: not valid JSON at column 2: Expecting property name enclosed in double quotes. 304 rows are bad"
    )


def test_a_file_that_is_bad_as_a_whole_is_not_read_on():
    with pytest.raises(BadRow, match="one object a line") as caught:
        check([b"[\n", b"{},\n" * 300])
    assert not isinstance(caught.value, BadRows)
    with pytest.raises(BadRow, match=r"longer than 1048576 bytes: JSONL has one object a line"):
        check([json.dumps([CHAT] * 20_000).encode()])
    with pytest.raises(BadRows, match=r"At least 2 rows are bad$"):
        check([_jsonl(CHAT, {}) + b"\n" + _jsonl(CHAT)])


def test_what_a_new_file_may_not_hold_is_still_read_where_it_was_stored():
    raw = _chat({"role": "assistant", "content": ""})
    assert list(parse([raw])) == [Chat((Message("assistant", "", True),))]
    with pytest.raises(BadRow, match="no user's turn before it"):
        check([raw])


@pytest.mark.parametrize(
    "limits, line, reason",
    [
        (Limits(max_rows=2), 3, "the file has more than 2 rows"),
        (Limits(max_line_bytes=40), 1, "the line is longer than 40 bytes"),
        (Limits(max_file_bytes=100), 2, "the file is larger than 100 bytes"),
    ],
)
def test_limits(limits: Limits, line: int, reason: str):
    raw = _jsonl(CHOICE, CHOICE, CHOICE)
    size = len(raw) // 3 - 1
    assert check([raw], Limits(max_rows=3, max_line_bytes=size, max_file_bytes=len(raw))).rows == 3
    with pytest.raises(BadRow, match=reason) as caught:
        check((raw[i : i + 10] for i in range(0, len(raw), 10)), limits)
    assert caught.value.line == line


def test_a_line_of_50_mb_is_refused_without_being_held():
    produced = 0

    def chunks() -> Iterator[bytes]:
        nonlocal produced
        yield _jsonl(COMPLETION) + b'{"prompt": "'
        for _ in range(800):
            produced += 1
            yield b"x" * 65536

    tracemalloc.start()
    try:
        with pytest.raises(BadRow, match="Line 2: the line is longer than 1048576 bytes"):
            check(chunks())
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert produced <= 17


def test_weight_0_is_not_scored():
    raw = _chat({**ASSISTANT, "weight": 0}, USER, {**ASSISTANT, "weight": 1}, ASSISTANT)
    (row,) = parse([raw])
    assert [m.scored for m in row.messages] == [False, False, True, True]
