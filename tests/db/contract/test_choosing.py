"""The method of a job that names none: by evidence, by what workers can do, and never one that lacks what was asked."""

from dataclasses import replace

import pytest

from db.contract import choosing, methods
from db.contract.choosing import Kind, choices
from db.contract.evidence import EVIDENCE, Evidence
from db.contract.methods.base import Preset

NO_WORKER = choosing.barred(quantised=False, autograd=False)
CHOICE = Kind("smollm2-135m", "choice", "answer", NO_WORKER)


def line(
    method: str, seconds: float | None, *, activation: str = "answer", model: str = "smollm2*", seeds: int = 3
) -> Evidence:
    needs = methods.ARMS[method].autograd
    return Evidence(model, "choice", activation, method, Preset(steps=1), 0.6, seconds, 0.7, 0.01, seeds, needs)  # type: ignore[arg-type]


LINES = (line("first_order", 4.0), line("lozo", 30.0), line("mezo", 66.0), line("mezo", 1.0, activation="all"))


def names(kind: Kind, asked: dict[str, object] | None = None, lines: tuple[Evidence, ...] = LINES) -> list[str]:
    return [one.method for one in choices(kind, asked or {}, lines)]


def test_the_least_seconds_of_this_kind_come_first():
    assert names(replace(CHOICE, barred=None)) == ["first_order", "lozo", "mezo", "mezo"]
    assert names(replace(CHOICE, barred=None, activation="all")) == ["mezo", "mezo"]


def test_a_time_of_few_seeds_counts_for_more_so_that_luck_displaces_no_line_of_three():
    steady = line("mezo", 30.0)
    for seeds, seconds, first in ((1, 16.0, "mezo"), (1, 14.0, "fzoo"), (2, 21.0, "mezo"), (2, 19.0, "fzoo")):
        assert names(CHOICE, lines=(line("fzoo", seconds, seeds=seeds), steady))[0] == first
    alone = next(iter(choices(CHOICE, {}, (line("fzoo", 16.0, seeds=1),))))
    assert (alone.method, "16 s" in alone.why, "1 seed," in alone.why) == ("fzoo", True, True)


def test_what_needs_a_gradient_is_left_out_where_none_can_be_had_and_that_is_said():
    first = next(iter(choices(CHOICE, {}, LINES)))
    assert first.method == "lozo"
    for part in ("30 s", "0.6", "3 seeds", "first_order had 4 s", NO_WORKER):
        assert part in first.why
    quantised = replace(CHOICE, barred=choosing.barred(quantised=True, autograd=True))
    assert "quantised" in next(iter(choices(quantised, {}, LINES))).why


def test_what_was_not_measured_is_no_evidence():
    assert names(CHOICE, lines=(line("lozo", None), line("mezo", 66.0))) == ["mezo", "mezo"]
    assert names(replace(CHOICE, model="llama")) == ["mezo"]
    assert "not measured" in next(iter(choices(replace(CHOICE, model="llama"), {}, LINES))).why


@pytest.mark.parametrize(
    "asked, expected",
    [
        ({"eps": 1e-3}, ["lozo", "mezo", "mezo"]),
        ({"nu": 5}, ["lozo", "mezo"]),  # the last is refused for it, as where mezo is named
        ({"optimizer": "adam"}, ["mezo", "mezo"]),
        ({"rank": 4, "steps": 9}, ["first_order", "lozo", "mezo", "mezo"]),
    ],
)
def test_settings_without_a_method_choose_among_those_that_have_them(asked, expected):
    assert names(replace(CHOICE, barred=None), asked) == expected


@pytest.mark.parametrize(
    "barred, asked, expected, said",
    [
        (None, {}, "first_order", "not measured"),
        (None, {"eps": 1e-3}, "mezo", "has not the settings"),
        (NO_WORKER, {}, "mezo", "no worker"),
    ],
)
def test_an_lm_job_takes_a_gradient_where_it_can_be_had(barred, asked, expected, said):
    first = next(iter(choices(Kind("llama", "lm", "all", barred), asked, ())))
    assert first.method == expected
    assert said in first.why


def test_evidence_is_of_methods_that_are_there_and_says_what_they_need():
    for one in EVIDENCE:
        assert one.autograd == methods.ARMS[one.method].autograd
        assert one.seconds is None or one.seconds > 0
