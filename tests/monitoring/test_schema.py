"""The dashboards are Grafana's to the field, by its schema's own types, and fit into ConfigMaps."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.helm.charts import of_kind, rendered
from tests.monitoring.promql import BOARDS
from tests.monitoring.schema import faults

MOST = 2**20  # bytes of a ConfigMap's data: the API server's limit
WRONG: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "of the board": lambda board, _: board.update(titel="x"),
    "of a panel": lambda _, panel: panel.update(widht=8),
    "of options": lambda _, panel: panel["options"].update(legends={}),
    "of a query": lambda _, panel: panel["targets"][0].update(expresion="up"),
    "of a curve": lambda _, panel: panel["fieldConfig"]["defaults"]["custom"].update(lineWide=1),
    "of a link": lambda board, _: next(p for p in board["panels"] if p.get("links"))["links"][0].update(adress="x"),
    "a number as text": lambda _, panel: panel["gridPos"].update(h="8"),
    "text as a number": lambda _, panel: panel.update(title=8),
    "of no enumeration": lambda _, panel: panel["options"]["legend"].update(displayMode="big"),
    "of no enumeration, deep": lambda _, panel: panel["fieldConfig"]["defaults"]["custom"].update(showPoints="often"),
    "a list for one": lambda board, _: board.update(refresh=["30s"]),
}


@pytest.mark.parametrize("uid", BOARDS)
def test_a_dashboard_is_grafanas(uid):
    assert faults(BOARDS[uid]) == []


@pytest.mark.parametrize("what", WRONG)
def test_the_check_sees_what_is_wrong(what):
    board = copy.deepcopy(BOARDS["onward-overview"])
    panel = next(panel for panel in board["panels"] if panel["type"] == "timeseries")
    WRONG[what](board, panel)
    assert len(faults(board)) == 1


def test_each_fits_into_a_config_map():
    made = of_kind(rendered("monitored"), "ConfigMap", "dashboard")
    assert len(made) == len(BOARDS)
    for one in made:
        assert sum(len(key.encode()) + len(text.encode()) for key, text in one["data"].items()) < MOST
