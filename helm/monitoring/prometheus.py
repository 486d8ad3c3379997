"""Asks a Prometheus what a dashboard's panels ask, with Grafana's variables filled in."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

INSTALLATION = {"namespace": "compose", "release": "onward"}  # as Compose labels what it scrapes
VARIABLES = {"$__rate_interval": "15s", "$model": ".*", "$cost": "0.10"} | {f"${k}": v for k, v in INSTALLATION.items()}


@dataclass(frozen=True)
class Series:
    """One curve: its labels, and finite values by time in seconds."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Asked:
    """A query of a panel."""

    board: str
    panel: str
    expr: str
    legend: str


def panels(board: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every panel that asks something, in reading order."""
    return (panel for panel in board["panels"] if panel["type"] != "row")


def asked(board: Mapping[str, Any]) -> Iterator[Asked]:
    """Every query of every panel."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield Asked(board["title"], panel["title"], target["expr"], target["legendFormat"])


def filled(expr: str, variables: Mapping[str, str] = VARIABLES) -> str:
    """`expr` as Grafana would send it."""
    for name, value in variables.items():
        expr = expr.replace(name, value)
    return expr


def named(legend: str, labels: Mapping[str, str]) -> str:
    """A series' name, as Grafana writes it from the legend's format."""
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return re.sub(r"\{\{\w+\}\}", "", legend).strip()


def ask(url: str, path: str, **fields: object) -> Any:
    """The data of an answer of Prometheus' API. Raises ValueError with what it says of a query that it refuses."""
    try:
        with urlopen(f"{url}/api/v1/{path}?{urlencode(fields)}", timeout=30) as answer:
            return json.load(answer)["data"]
    except HTTPError as error:
        raise ValueError(f"{error.code}: {error.read().decode()} for {fields}") from error


def over(url: str, expr: str, start: float, end: float, step: float) -> list[Series]:
    """The curves of `expr` between two times; values that are not finite are left out."""
    found = ask(url, "query_range", query=filled(expr), start=start, end=end, step=step)
    made = []
    for series in found["result"]:
        points = [(float(t), float(v)) for t, v in series["values"] if math.isfinite(float(v))]
        if points:
            made.append(Series(series["metric"], points))
    return made
