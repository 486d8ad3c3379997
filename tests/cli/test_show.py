"""Numbers as a person reads them."""

import pytest

from cli import show
from cli.demo.curves import draw, running_mean


@pytest.mark.parametrize(
    "count, text",
    [(None, "-"), (0, "0"), (999, "999"), (1000, "1.0k"), (12_345, "12.3k"), (2_500_000, "2.5M"), (7e12, "7000.0G")],
)
def test_size(count, text):
    assert show.size(count) == text


@pytest.mark.parametrize(
    "seconds, text", [(None, "-"), (0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_span(seconds, text):
    assert show.span(seconds) == text


def test_running_mean_looks_back_only():
    assert running_mean([1, 2, 3, 4], over=2) == [1.0, 1.5, 2.5, 3.5]
    assert running_mean([]) == []


def test_curves_are_a_picture_of_all_jobs(tmp_path):
    held = [(0, 0.7, 0.5), (10, 0.6, 0.6)]
    one = draw({"a": ([(1, 0.7), (2, 0.6)], held)}, tmp_path / "one.png").read_bytes()
    two = draw({"a": ([(1, 0.7), (2, 0.6)], held), "b": ([], held)}, tmp_path / "two.png").read_bytes()
    assert one.startswith(b"\x89PNG")
    width = [int.from_bytes(png[16:20], "big") for png in (one, two)]
    assert width[1] == 2 * width[0]
