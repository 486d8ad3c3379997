"""Conversion to chat rows: what becomes of each format, however its objects are laid out and the bytes are cut."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.contract.rows.convert import LONGEST, converted, objects
from db.contract.rows.files import check
from db.contract.rows.jsonl import BadRow
from tests.db.contract.rows.corpus import FOLDER

SHAREGPT = {
    "id": "a", "system": "Be kind.",
    "conversations": [
        {"from": "gpt", "value": "Welcome"}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"},
        {"from": "human", "value": "And?"}, {"from": "gpt", "value": ""},
    ],
}  # fmt: skip
ALPACA = {
    "instruction": "Translate.", "input": "Guten Tag", "output": "Good day",
    "history": [["Hi", "Hello"]],
}  # fmt: skip
PLAIN = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}


def _rows(raw: bytes, **given) -> list[object]:
    return [line and json.loads(line) for line in converted([raw], **given)]


def test_sharegpt_becomes_turns_and_what_cannot_be_learned_gets_weight_0():
    (row,) = _rows(json.dumps(SHAREGPT).encode())
    assert row == {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "assistant", "content": "Welcome", "weight": 0},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "", "weight": 0},
        ]
    }


def test_alpaca_becomes_a_question_with_its_input_and_an_answer():
    (row,) = _rows(json.dumps(ALPACA).encode())
    assert [(m["role"], m["content"]) for m in row["messages"]] == [
        ("user", "Hi"), ("assistant", "Hello"), ("user", "Translate.\n\nGuten Tag"), ("assistant", "Good day"),
    ]  # fmt: skip
    (bare,) = _rows(json.dumps({"instruction": "Sing.", "output": "La"}).encode())
    assert bare["messages"][0]["content"] == "Sing."


def test_a_row_without_an_answer_is_left_out_and_others_stay_as_they_are():
    raw = json.dumps([{**ALPACA, "output": " ", "history": []}, PLAIN, {"prompt": "p", "completion": "c"}])
    assert _rows(raw.encode()) == [None, PLAIN, {"prompt": "p", "completion": "c"}]


values = st.lists(
    st.fixed_dictionaries(
        {"conversations": st.just([]), "x": st.text(max_size=30) | st.lists(st.integers(), max_size=3)}
    ),
    max_size=6,
)


@given(
    values=values, indent=st.sampled_from([None, 2]), array=st.booleans(), cut=st.integers(1, 30), ascii_=st.booleans()
)
def test_objects_are_found_however_they_are_laid_out_and_cut(values, indent, array, cut, ascii_):
    if array:
        text = json.dumps(values, indent=indent, ensure_ascii=ascii_)
    else:
        text = "\n".join(json.dumps(value, indent=indent, ensure_ascii=ascii_) for value in values)
    raw = text.encode("utf-8", "surrogatepass") if ascii_ else text.encode()
    assert list(objects(raw[i : i + cut] for i in range(0, len(raw), cut))) == list(enumerate(values, start=1))


@pytest.mark.parametrize("name", ["sharegpt.jsonl", "alpaca.jsonl", "array.json", "array-printed.json", "printed.json"])
def test_what_an_upload_refuses_and_names_it_takes_once_converted(name: str):
    raw = (FOLDER / name).read_bytes()
    with pytest.raises(BadRow, match="onward files convert"):
        check([raw])
    assert check([line for line in converted([raw]) if line]).format == "chat"


@pytest.mark.parametrize(
    "raw, line, reason",
    [
        (b'{"conversations": [{"from": "ghost", "value": "boo"}]}', 1, "conversations[0] is from 'ghost'; known are"),
        (json.dumps(SHAREGPT | {"tools": "[{}]"}).encode(), 1, "tools are not converted"),
        (b'{"instruction": "a", "output": 3}', 1, "output must be a string, not a number"),
        (json.dumps(PLAIN).encode() + b'\n{"messages": [', 2, "not valid JSON"),
        (json.dumps(PLAIN).encode() + b"\nhello", 2, "a JSON object must begin where 'hello' stands"),
        (b"\xff", 1, "not valid UTF-8"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_number(raw: bytes, line: int, reason: str):
    with pytest.raises(BadRow) as caught:
        list(converted([raw]))
    assert caught.value.line == line
    assert reason in caught.value.reason


def test_a_long_file_is_converted_an_object_at_a_time():
    def pieces(count: int):
        yield b"["
        for _ in range(count):
            yield b",\n".join([json.dumps(SHAREGPT, indent=1).encode()] * 100) + b","

    tracemalloc.start()
    try:
        assert sum(1 for _ in converted(pieces(40))) == 4_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # of 2 MiB
        with pytest.raises(BadRow, match="no JSON object ends within"):
            list(converted(b'{"a": "' + b"x" * (1 << 20) for _ in range(40)))
        assert tracemalloc.get_traced_memory()[1] < 8 * LONGEST
    finally:
        tracemalloc.stop()
