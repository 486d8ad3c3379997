"""The parts by themselves: whose turn it is, what is remembered, what is written, how events are cut."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from api.chat.ledger import Ledger
from api.chat.lines import EVENT_BYTES, Gone, events_of
from api.chat.routing import Offer, Wants, able, offer, ordered
from api.memory import Memory
from db.tenant.served import Answered
from tests.api.chat.conftest import counted
from tests.api.conftest import Client
from tests.db.inserted import a_tenant
from tests.waiting import HANG, until

offers = st.lists(
    st.builds(
        Offer,
        worker=st.uuids().map(str),
        url=st.uuids().map(lambda u: f"http://{u}"),
        held=st.frozensets(st.sampled_from("abc")),
        queued=st.integers(0, 5),
        tools=st.booleans(),
        answer=st.booleans(),
    ),
    max_size=6,
)


@given(offers, st.sampled_from([None, "a", "b"]), st.data())
def test_the_order_is_that_of_the_rule_and_leaves_nobody_out(some, wears, data):
    shunned = {o.url for o in some if data.draw(st.booleans())}
    under_way = {o.url: data.draw(st.integers(0, 3)) for o in some}
    holder = data.draw(st.sampled_from([None, *(o.worker for o in some)]))
    found = ordered(some, Wants(wears, holder=holder), under_way, shunned)
    assert sorted(found, key=id) == sorted(some, key=id)
    ranks = [
        (
            o.url in shunned, wears is not None and wears not in o.held, holder is not None and o.worker != holder,
            o.queued + under_way[o.url],
        )
        for o in found
    ]  # fmt: skip
    assert ranks == sorted(ranks)


@given(offers, st.booleans(), st.booleans())
def test_only_who_can_is_asked(some, tools, answer):
    found = able(some, Wants(tools=tools, answer=answer))
    assert found == [o for o in some if (o.tools or not tools) and (o.answer or not answer)]


def test_what_a_row_says_is_read_with_care():
    assert offer("w", {"url": "http://a:1/"}) == Offer("w", "http://a:1", frozenset(), 0, False, False)
    said = {"url": "http://a", "held": ["x@1", 5], "queued_tokens": 3, "tools": True, "answer": True}
    assert offer("w", said) == Offer("w", "http://a", frozenset(["x@1"]), 3, True, True)
    for wrong in ({}, {"url": 1}, {"url": "file:///x"}, said | {"held": 3}, said | {"queued_tokens": "3"}):
        assert offer("w", wrong) is None


def away():
    raise OperationalError("x", None, Exception())


def test_memory_answers_only_while_the_database_does_not():
    now = [0.0]
    memory = Memory(10.0, lambda: now[0])
    assert memory.through("a", lambda: 1) == 1
    assert memory.through("a", lambda: 2) == 2, "while it answers, it is asked"
    assert memory.through("a", away) == 2
    with pytest.raises(OperationalError):
        memory.through("b", away)
    now[0] = 5.0
    assert memory.through("a", away) == 2
    now[0] = 11.0
    with pytest.raises(OperationalError):
        memory.through("a", away)


def test_what_is_gone_is_forgotten_and_other_errors_are_errors():
    memory = Memory(10.0)
    memory.through("a", lambda: 1)
    with pytest.raises(ZeroDivisionError):
        memory.through("a", lambda: 1 // 0)
    assert memory.through("a", lambda: None) is None
    with pytest.raises(OperationalError):
        memory.through("a", away)
    none = Memory(0.0)
    none.through("a", lambda: 1)
    with pytest.raises(OperationalError):
        none.through("a", away)


def cut(pieces):
    async def source():
        for piece in pieces:
            yield piece

    async def collected():
        return [event async for event in events_of(source())]

    return asyncio.run(collected())


@given(st.lists(st.sampled_from([b"a", b"bc", b'{"x": 1}', b"[DONE]"]), max_size=6), st.data())
def test_events_are_the_same_however_the_bytes_come(said, data):
    whole = b"".join(b"data: " + event + b"\n\n" for event in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[i:j] for i, j in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert cut(pieces) == said


def test_what_is_between_events_is_passed_over_and_what_does_not_end_is_cut_off():
    assert cut([b": hi\n\n", b"event: x\ndata: 1\ndata: 2\n\n", b"id: 3\n\ndata: half"]) == [b"1\n2"]
    with pytest.raises(Gone):
        cut([b"data: " + b"x" * EVENT_BYTES, b"x"])


def test_a_ledger_writes_in_the_background_once_and_what_is_left_at_its_end(factory, as_api):
    with factory.begin() as session:
        tenant = a_tenant(session)
    who = Client(tenant, "", None)
    ledger = Ledger(as_api, 0.02)
    for number in range(5):
        ledger.note(tenant, Answered(f"r{number}", "m", 2, 1, 3))
        ledger.note(tenant, Answered("r0", "m", 9, 9, 9))
    until(lambda: len(counted(factory, who)) == 5, "all are written")
    assert set(counted(factory, who)) == {(2, 1, 3)}
    until(lambda: not ledger.unwritten, "and forgotten")
    assert ledger.waiting(tenant) == 0
    patient = Ledger(as_api, HANG)
    patient.note(tenant, Answered("last", "m", 1, 0, 1))
    assert patient.waiting(tenant) == 2
    patient.close()
    assert len(counted(factory, who)) == 6
    ledger.close()
