"""Uploads made to hurt: rows or a bad row come of them, in time and memory that grow with their bytes and no faster."""

import json
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.contract.rows.files import check, parse
from db.contract.rows.formats import Chat, Choice, Completion
from db.contract.rows.jsonl import BadRow

MIB = 1 << 20
FULL = MIB - 64  # bytes that a line has room for
ROWS = (
    {"prompt": "p", "choices": [" a", " b"], "label": 1},
    {"prompt": "p", "completion": " c"},
    {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "weight": 1}]},
    {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "s"}], "name": "n"},
            {"role": "user", "content": "u"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "t"},
            {"role": "assistant", "refusal": "a", "audio": None},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    },
)

CHAT = b'{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": %s}]'


def value(text: bytes) -> bytes:
    return b'{"prompt": ' + text + b', "completion": "c"}\n'


def filled(unit: bytes, left: bytes = b"", right: bytes = b"") -> bytes:
    return value(left + unit * ((FULL - len(left) - len(right)) // len(unit)) + right)


HOSTILE = {
    "nested arrays": filled(b"["),
    "nested objects": filled(b'{"a":'),
    "closed arrays": value(b"[" * (FULL // 2) + b"]" * (FULL // 2)),
    "small objects": filled(b"{},", b"[", b"0]"),
    "small arrays": filled(b"[],", b"[", b"0]"),
    "small numbers": filled(b"7,", b"[", b"0]"),
    "a number of a million digits": filled(b"9"),
    "a fraction of a million digits": filled(b"9", b"0."),
    "an exponent of a million digits": filled(b"9", b"1e"),
    "a long key": b'{"' + b"k" * FULL + b'": 1}\n',
    "keys": b"{" + b", ".join(b'"%d": 0' % i for i in range(60_000)) + b"}\n",
    "equal keys": b"{" + b", ".join([b'"k": 0'] * 100_000) + b"}\n",
    "escapes": filled(b"\\u0000", b'"', b'"'),
    "lone surrogates": filled(b"\\ud800", b'"', b'"'),
    "backslashes": filled(b"\\\\", b'"', b'"'),
    "an open text": filled(b"x", b'"'),
    "control characters": filled(b"\x01", b'"', b'"'),
    "NULs": b"\x00" * FULL,
    "spaces": b" " * FULL + b"7",
    "many choices": b'{"prompt": "p", "label": 1, "choices": [' + b", ".join([b'"a"'] * 150_000) + b"]}\n",
    "many messages": b'{"messages": [' + b", ".join([b"{}"] * 150_000) + b"]}\n",
    "blank lines": b"\n" * (FULL // 8) + b"{}",
    "a nested extra": b'{"prompt": "p", "completion": "c", "x": ' + b"[" * 900 + b"]" * 900 + b"}\n",
    "many extras": b'{"prompt": "p", "completion": "c", "x": [' + b",".join([b"{}"] * 300_000) + b"]}\n",
    "many tools": CHAT % b'"a"' + b', "tools": [' + b",".join([b'{"function":{"name":"f"}}'] * 40_000) + b"]}\n",
    "a nested tool": CHAT % b'"a"' + b', "tools": [{"function":{"name":"f","x":' + b"[" * 900 + b"]" * 900 + b"}}]}\n",
    "many parts": CHAT % (b"[" + b",".join([b'{"type":"text","text":"a"}'] * 38_000) + b"]") + b"}\n",
    "a JSON array": b"[" + b",".join([b'{"prompt": "p", "completion": "c"}'] * 29_000) + b"]\n",
    "carriage returns": b"\r" * FULL,
}


def refusal(chunks: list[bytes]) -> BadRow | None:
    try:
        check(chunks)
    except BadRow as bad:
        return bad
    return None


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_a_line_made_to_hurt_costs_what_a_line_does(raw: bytes):
    good = json.dumps(ROWS[1]).encode() + b"\n"
    began = time.process_time()
    bad = refusal([good, raw])
    assert time.process_time() - began < 5  # the processor's own seconds; a square of a million is hours
    if bad is not None:
        assert len(bad.reason) < 300
        assert len(bad.param or "") < 100
        sendable(bad)
    tracemalloc.start()
    try:
        refusal([good, raw])
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


def sendable(bad: BadRow) -> None:
    json.dumps([bad.reason, bad.param], ensure_ascii=False).encode()


@given(data=st.data(), row=st.sampled_from(ROWS), count=st.integers(1, 4))
def test_a_good_file_that_was_tampered_with_is_rows_or_a_bad_row(data, row, count):
    raw = bytearray(b"".join(json.dumps(row).encode() + b"\n" for _ in range(count)))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw)))
        junk = st.binary(max_size=4) | st.sampled_from(
            [b'"', b"\n", b"{", b"}", b"[", b"\\", b"\\u0000", b"\\ud800", b"NaN", b"1e999"]
        )
        raw[at : at + data.draw(st.integers(0, 6))] = data.draw(junk)
    cut = data.draw(st.integers(1, 50))
    chunks = [bytes(raw[i : i + cut]) for i in range(0, len(raw), cut)]
    bad = refusal(chunks)
    if bad is not None:
        assert 1 <= bad.line <= raw.count(b"\n") + 1
        sendable(bad)
        return
    for found in parse(chunks):
        assert isinstance(found, Chat | Choice | Completion)
        str(found).encode()  # text, all of it
