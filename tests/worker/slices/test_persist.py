"""Writes that are tried again: while it makes sense, with pauses that grow, and no longer."""

import pytest
from sqlalchemy.exc import OperationalError

from db.worker.leases import LeaseLost
from tests.worker.slices.doubles import Time
from worker.slices.persist import persist

FOREVER = float("inf")


@pytest.fixture
def time():
    return Time()


def test_persisting_tries_at_least_once_and_asks_anew_how_long(time):
    tries = []

    def away() -> None:
        tries.append(1)
        raise OperationalError("", {}, Exception("connection refused"))

    with pytest.raises(OperationalError):
        persist(away, lambda: 0.0, time.clock)
    assert (len(tries), time.slept) == (1, [])
    ends = iter([FOREVER, FOREVER, 0.0])  # a lease that is renewed while it is waited for, and then is not
    with pytest.raises(OperationalError):
        persist(away, lambda: next(ends), time.clock)
    assert (len(tries), time.slept) == (4, [0.05, 0.1])
    assert persist(lambda: "written", lambda: 0.0, time.clock) == "written"


def test_persisting_does_not_try_again_what_the_database_refused(time):
    def refused() -> None:
        raise LeaseLost("ftjob-a")

    with pytest.raises(LeaseLost):
        persist(refused, lambda: FOREVER, time.clock)
    assert time.slept == []


def test_an_outage_is_one_line_however_many_tries_it_takes(time, lines):
    tries = iter(range(6))

    def away_at_first() -> str:
        if next(tries) < 5:
            raise OperationalError("", {}, Exception("connection refused"))
        return "written"

    assert persist(away_at_first, lambda: FOREVER, time.clock) == "written"
    assert len(time.slept) == 5
    assert [x["event"] for x in lines] == ["database unreachable, trying again"]
