"""A profile's file: what is written is read again, and what no method could follow is refused, whoever made it."""

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from db.contract.profiles import KINDS
from tests.profiled import START, made, sha256, tensors
from worker.runs import profiles
from worker.runs.profiles import KEY, BadProfile, read, written
from worker.types import Layout, Module

LAYOUT = Layout(2, 4.0, (Module("l.0.q", 6, 5), Module("l.1.q", 6, 4)))
COUNT = len(LAYOUT.shapes)


def of(kind, **changed):
    return written(kind, "base", "m", LAYOUT, {**tensors(kind, LAYOUT), **changed})


def header(data):
    size = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"][KEY])


def resaid(data, **changed):
    """The file with another line of metadata."""
    return save(load(data), metadata={KEY: json.dumps({**header(data), **changed})})


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(kind):
    data = made(kind, LAYOUT)
    found = read(data)
    assert (found.of.kind, found.of.base, found.of.sha256, found.model) == (kind, "base", sha256(data), "m")
    assert (found.layout.modules, found.layout.rank, found.start) == (LAYOUT.modules, LAYOUT.rank, START)
    assert found.of.layout == profiles.fingerprint(LAYOUT)
    assert found.told == {"model": "m", "rank": 2, "targets": ["q"], "by": "tests"}
    for name, wanted in tensors(kind, LAYOUT).items():
        np.testing.assert_array_equal(found.tensors[name], wanted)
        with pytest.raises(ValueError, match="read-only"):
            found.tensors[name][...] = 0
    assert made(kind, LAYOUT) == data


def test_a_fingerprint_is_of_rank_modules_and_their_order_and_of_nothing_else():
    def fingerprint(rank=2, alpha=4.0, modules=LAYOUT.modules, invocation=()):
        return profiles.fingerprint(Layout(rank, alpha, modules, invocation))

    assert fingerprint() == fingerprint(alpha=9.0) == fingerprint(invocation=(1, 2))
    others = [fingerprint(rank=3), fingerprint(modules=LAYOUT.modules[::-1]), fingerprint(modules=LAYOUT.modules[:1])]
    assert len({fingerprint(), *others}) == 4


BAD = {
    "negative": ("factors", {"factors": np.array([1, -1e-9, 1, 1], np.float32)}, "negative"),
    "zero-sum": ("factors", {"factors": np.zeros(COUNT, np.float32)}, "sum of its factors is 0"),
    "nan": ("factors", {"factors": np.array([1, np.nan, 1, 1], np.float32)}, "not finite"),
    "infinite": ("factors", {"factors": np.array([1, np.inf, 1, 1], np.float32)}, "not finite"),
    "fewer": ("factors", {"factors": np.ones(COUNT - 1, np.float32)}, "is wanted"),
    "double": ("factors", {"factors": np.ones(COUNT)}, "is wanted"),
    "other": ("factors", {"more": np.ones(1, np.float32)}, "its tensors are"),
    "no entry": ("mask", {"mask": np.zeros(-(-LAYOUT.size // 8), np.uint8)}, "sum of its mask is 0"),
    "short mask": ("mask", {"mask": np.ones(1, np.uint8)}, "is wanted"),
    "behind": ("mask", {"mask": np.full(-(-LAYOUT.size // 8), 255, np.uint8)}, "behind the last entry"),
    "short": ("basis", {"l.1.q": np.full((2, 6), 0.1, np.float32)}, "length"),
    "basis nan": ("basis", {"l.1.q": np.full((2, 6), np.nan, np.float32)}, "not finite"),
    "basis of another rank": ("basis", {"l.1.q": np.eye(3, 6, dtype=np.float32)}, "is wanted"),
    "silent": (
        "mlp",
        {"w2": np.zeros((COUNT, 3), np.float32), "b2": np.zeros(COUNT, np.float32)},
        "sum of its factors is 0",
    ),
    "loud": ("mlp", {"b2": np.full(COUNT, 1e7, np.float32)}, "larger than"),
    "wide": ("mlp", {"b1": np.zeros((COUNT, 257), np.float32)}, "257 hidden"),
    "flat": ("mlp", {"b1": np.zeros(COUNT, np.float32)}, "0 hidden"),
    "mlp nan": ("mlp", {"w1": np.full((COUNT, 3, 5), np.nan, np.float32)}, "not finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_no_method_could_follow_is_refused(name):
    kind, changed, said = BAD[name]
    assert LAYOUT.size % 8, "so that a mask has bits behind the last entry"
    with pytest.raises(BadProfile, match=said):
        of(kind, **changed)


def test_what_is_no_profile_is_refused():
    data = made("mask", LAYOUT)
    broken = [
        b"", b"x" * 7, data[:-1], data + b"\0", data[8:], save({"mask": np.ones(1, np.uint8)}),
        resaid(data, format="onward.profile/2"), resaid(data, kind="masks"), resaid(data, kind="basis"),
        resaid(data, modules=[]), resaid(data, modules=[["q", 6]]), resaid(data, rank=0), resaid(data, rank="two"),
        resaid(data, start=-1), resaid(data, start=2**63), resaid(data, about=1), resaid(data, modules=[["q", 0, 5]]),
        resaid(data, rank=10**30), (2**40).to_bytes(8, "little") + data[8:],
    ]  # fmt: skip
    for number, one in enumerate(broken):
        assert refused(one), f"number {number} was taken"


def refused(data):
    try:
        read(data)
    except BadProfile:
        return True
    return False
