"""Draw the dashboards from their JSON and a Prometheus' data, where no Grafana is at hand.

`python -m helm.monitoring.pictures http://127.0.0.1:9090 START END [FOLDER]`, times in seconds since 1970.
Titles, places, units, legends and limits are the JSON's; the look is matplotlib's, and each picture says so.
"""

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helm.monitoring import prometheus
from helm.monitoring.drawing import Value, bars, curves, number, states

FOLDER = Path(__file__).parents[2] / "docs" / "dashboards"
BOARDS = Path(__file__).parents[1] / "dashboards"
WIDE, HIGH = 0.75, 0.36  # inches of a grid cell
DRAWN = "Drawn with matplotlib from the dashboard's JSON and Prometheus' data of a test run, not by Grafana."


def draw(board: Mapping[str, Any], url: str, start: float, end: float, path: Path) -> None:
    """One dashboard as a PNG."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    width, height = 24 * WIDE, (rows + 2) * HIGH
    figure = Figure(figsize=(width, height), facecolor="#f4f5f5")
    figure.text(0.008, 1 - 0.45 * HIGH / height, board["title"], fontsize=17, weight="bold", va="top")
    figure.text(0.992, 1 - 0.65 * HIGH / height, DRAWN, fontsize=10, color="#666666", ha="right", va="top")
    for panel in board["panels"]:
        at = panel["gridPos"]
        left, bottom = at["x"] / 24, 1 - (at["y"] + at["h"] + 2) * HIGH / height
        box = (left, bottom, at["w"] / 24, at["h"] * HIGH / height)
        if panel["type"] == "row":
            figure.text(0.008, bottom + 0.2 * box[3], panel["title"], fontsize=13, weight="bold", color="#1f5fae")
            continue
        _panel(figure, panel, box, list(_series(panel, url, start, end)), (start, end))
    figure.savefig(path, dpi=80)


def _series(panel: Mapping[str, Any], url: str, start: float, end: float) -> Iterator[Value]:
    step = max(1.0, (end - start) / 240)
    for target in panel["targets"]:
        for found in prometheus.over(url, target["expr"], start, end, step):
            name = prometheus.named(target["legendFormat"], found.labels)
            yield Value(name, [t - start for t, _ in found.points], [v for _, v in found.points])


def _panel(
    figure: Figure,
    panel: Mapping[str, Any],
    box: tuple[float, float, float, float],
    found: list[Value],
    span: tuple[float, float],
) -> None:
    left, bottom, width, height = box
    gap_x, gap_y = 0.003, 0.003
    frame = figure.add_axes((left + gap_x, bottom + gap_y, width - 2 * gap_x, height - 2 * gap_y), facecolor="white")
    frame.set(xticks=[], yticks=[])
    for spine in frame.spines.values():
        spine.set_color("#d8d9da")
    title = "\n".join(textwrap.wrap(panel["title"], int(panel["gridPos"]["w"] * 6.6)))
    lines = title.count("\n") + 1
    inches = height * figure.get_figheight()
    frame.text(0.012, 1 - 0.07 / inches, title, fontsize=10, weight="bold", va="top", transform=frame.transAxes)
    head = (0.12 + 0.17 * lines) / inches
    field = panel["fieldConfig"]["defaults"]
    if not found:
        frame.text(0.5, 0.4, "no data", ha="center", color="#999999", transform=frame.transAxes)
    elif panel["type"] == "stat":
        number(frame, found, field)
    else:
        foot = (0.1 if panel["type"] == "bargauge" else 0.82) / inches
        margin = {"timeseries": 0.75, "bargauge": 0.1, "state-timeline": 0.25}[panel["type"]] / figure.get_figwidth()
        inner = (left + margin, bottom + foot * height, width - margin - 0.012, height * (1 - foot - head))
        axes: Axes = figure.add_axes(inner)
        if panel["type"] == "timeseries":
            curves(axes, found, panel, span[1] - span[0])
        elif panel["type"] == "bargauge":
            bars(axes, found, field)
        else:
            states(axes, found, span[1] - span[0])


def main() -> None:
    url, start, end = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    folder = Path(sys.argv[4]) if len(sys.argv) > 4 else FOLDER
    every(url, start, end, folder)


def every(url: str, start: float, end: float, folder: Path = FOLDER) -> None:
    """All dashboards as PNGs in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(BOARDS.glob("*.json")):
        draw(json.loads(path.read_text()), url, start, end, folder / f"{path.stem}.png")
        print(folder / f"{path.stem}.png")


if __name__ == "__main__":
    main()
