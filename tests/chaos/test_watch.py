"""Each invariant is seen where it is broken, and only there; the report says so and names it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from tests.chaos import report
from tests.chaos.cases.ground import Claim, Held
from tests.chaos.plan import Submission
from tests.chaos.traffic import Answer, Entry
from tests.chaos.watch import (
    AFTERMATH,
    Invariant,
    Record,
    Verdict,
    allowed,
    company,
    doubled,
    kept,
    missing,
    quantile,
    unasked,
    union,
    unpaused,
)

WHOLE = Record(
    "ftjob-a", "ten_a", "plain", "succeeded", "", 3, 3, 30, 30, (0, 1, 2), (1.0, 2.0, 3.0), 0.0, ((0.0, 3.0),), False
)
ASKED = Submission(0, 0, "plain", 10, 2, 1, 0, 3)


def test_a_whole_journal_lacks_and_doubles_nothing():
    assert (missing(WHOLE, seen=3), doubled(WHOLE)) == (0, 0)


def test_a_step_that_is_gone_is_lost_whether_the_job_or_a_witness_counts_it():
    assert missing(replace(WHOLE, steps=(0, 2)), seen=0) == 1
    assert missing(WHOLE, seen=5) == 2  # five were seen committed once


def test_a_step_twice_in_the_journal_or_paid_twice_is_doubled():
    assert doubled(replace(WHOLE, steps=(0, 1, 1, 2))) == 1
    assert doubled(replace(WHOLE, scored=40)) == 1


@pytest.mark.parametrize(
    "cancel, wild, states",
    [
        ("", False, {"succeeded"}),
        ("refused", False, {"succeeded"}),
        ("accepted", False, {"cancelled"}),
        ("unclear", False, {"cancelled", "succeeded"}),
        ("", True, {"succeeded", "failed"}),
    ],
)
def test_a_job_may_end_only_as_its_tenant_was_told(cancel, wild, states):
    assert allowed(Entry(replace(ASKED, wild=wild), cancel=cancel)) == states


@pytest.mark.parametrize(
    "status, begun, ended, counted",
    [
        (200, 1, 2, False),
        (404, 1, 2, False),
        (503, 1, 2, True),
        (0, 1, 2, True),
        (503, 9, 11, False),  # into the outage
        (503, 15, 16, False),  # in it
        (0, 20 + AFTERMATH, 30, False),  # on a connection it cut
        (500, 20.1 + AFTERMATH, 30, True),
    ],
)
def test_an_answer_5xx_or_none_counts_where_no_outage_explains_it(status, begun, ended, counted):
    assert bool(unasked([Answer(status, "GET /", begun, ended)], [(10, 20)])) == counted


def test_time_is_kept_from_a_tenant_only_while_others_step():
    others = [0.5, 1.0, 1.5, 2.0]
    assert kept([], others, [(0.0, 2.0)], tick=1.0) == pytest.approx(2.0)
    assert kept([1.0], others, [(0.0, 2.0)], tick=1.0) == pytest.approx(1.0)  # it stepped in between
    assert kept([], others, [(1.2, 2.0)], tick=1.0) == pytest.approx(0.8)  # it came later
    assert kept([], [0.5, 100.0], [(0.0, 100.0)], tick=1.0) == pytest.approx(1.5)  # nobody stepped meanwhile
    assert kept([], others, [], tick=1.0) == 0.0  # it did not wait


def test_pauses_are_no_waiting():
    at = lambda second: datetime.fromtimestamp(second, UTC)  # noqa: E731
    turns = [(10.0, "paused"), (20.0, "resumed")]
    assert unpaused(at(0), at(30), turns) == [(0.0, 10.0), (20.0, 30.0)]
    assert unpaused(at(0), at(30), turns[:1]) == [(0.0, 10.0)]
    assert union([(5, 7), (0, 2), (1, 3)]) == [(0, 3), (5, 7)]


def test_quantiles_and_the_change_by_company():
    assert [quantile(range(1, 101), q) for q in (0.5, 0.95, 1.0)] == [51, 96, 100]
    assert quantile([], 0.5) == 0.0
    assert company([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.5]]) == 0.5
    with pytest.raises(ValueError, match="zip"):
        company([[1.0]], [])  # a journal that is shorter is not equal


def test_a_report_names_what_is_broken_and_nothing_else(tmp_path):
    verdict = Verdict([Invariant("steps lost", [], 10), Invariant("reads", ["GET /x: 200"], 3)], {"faults": 2})
    cases = [
        Held(1, "one", [Claim("a", True, "1"), Claim("b", False, "7 s")], 1.0),
        Held(2, "two", [Claim("c", True, "")]),
        Held(3, "three", not_played="no disk"),
    ]
    found = report.gathered(5, verdict, cases, {})
    assert report.broken(found) == ["reads: GET /x: 200", "case 1, b: 7 s"]
    assert [case["verdict"] for case in found["cases"]] == ["BROKEN", "held", "not played"]
    console = Console(record=True, width=200, quiet=True)
    report.printed(found, console)
    report.written(found, tmp_path / "deep" / "chaos.json")
    assert '"seed": 5' in (tmp_path / "deep" / "chaos.json").read_text()
