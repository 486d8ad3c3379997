"""The study's curves priced for other devices: where a loss is reached; and the model of rows is not the preset's."""

import json

import pytest

from bench.report.measure import RESULTS
from bench.studies.cost_line import WORTHS, lines, modelled, soonest

CURVE = [
    {"step": 0, "tokens": 0, "report": [1.0, 0.5]},
    {"step": 10, "tokens": 1000, "report": [0.8, 0.5]},
    {"step": 20, "tokens": 3000, "report": [0.4, 0.5]},
]


def test_a_loss_is_reached_on_the_line_between_two_points():
    assert soonest(CURVE, 0.6) == (pytest.approx(15), pytest.approx(2000))
    assert soonest(CURVE, 0.8) == (pytest.approx(10), pytest.approx(1000))
    assert soonest(CURVE, 0.3) is None


def test_the_model_wants_more_rows_where_reading_is_worth_more_and_is_not_the_preset():
    rows = [modelled(worth, 16, 4) for worth in WORTHS]
    assert rows == sorted(rows)
    assert rows[0] < rows[-1]
    assert modelled(32, 16, 4) != 4, "decision 0031: the preset has 4 rows at this worth"


def test_the_shape_of_the_preset_is_the_soonest_at_every_worth():
    """Decision 0031, of the lines that came to their target on half of their cells."""
    known = [line for line in lines(json.loads((RESULTS / "study.json").read_text())) if 2 * line.reached >= line.cells]
    for worth in WORTHS:
        best = min(known, key=lambda line: line.cost(worth))
        assert (best.probes, best.rows) == (16, 4), worth
