"""How the picture of a panel is drawn: curves, numbers, bars and states, with Grafana's units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

COLOURS = {"green": "#299c46", "orange": "#e0752d", "red": "#c4162a", "text": "#444444"}
LINES = ("#3274d9", "#e0752d", "#299c46", "#8f3bb8", "#e0b400", "#c4162a", "#33a2a2", "#705da0", "#7f7f7f", "#a0522d")
STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SPELLED = {"cps": "/s", "reqps": "/s", "flops": "FLOP/s", "h": " h", "short": "", "none": ""}
SHOWN = 6  # names in a legend


@dataclass(frozen=True)
class Value:
    """A named curve; times are seconds from the picture's left edge."""

    name: str
    times: list[float]
    values: list[float]

    @property
    def last(self) -> float:
        return self.values[-1]


def spelled(value: float, unit: str) -> str:
    """A value with its unit, in three digits."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "currencyUSD":
        return f"${value:.3g}"
    if unit == "s":
        return _duration(value)
    if unit == "bytes":
        for size, letter in ((2**40, "T"), (2**30, "G"), (2**20, "M"), (2**10, "K")):
            if abs(value) >= size:
                return f"{value / size:.3g} {letter}iB"
        return f"{value:.3g} B"
    for power, letter in STEPS:
        if abs(value) >= power:
            return f"{value / power:.3g} {letter}{SPELLED[unit].strip()}"
    return f"{value:.3g}{SPELLED[unit]}"


def _duration(value: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(value) >= 2 * size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g} s" if abs(value) >= 1 or value == 0 else f"{value * 1000:.3g} ms"


def colour(value: float, field: Mapping[str, Any]) -> str:
    """Of the highest limit that the value has reached."""
    reached = [s["color"] for s in field["thresholds"]["steps"] if s["value"] is None or value >= s["value"]]
    return COLOURS[reached[-1]]


def curves(axes: Axes, found: Sequence[Value], panel: Mapping[str, Any], seconds: float) -> None:
    """Lines or stacked areas, limits as dashed lines, the last values in the legend."""
    field = panel["fieldConfig"]["defaults"]
    unit = field["unit"]
    if field["custom"].get("stacking", {}).get("mode") == "normal":
        _stack(axes, found)
    else:
        for number_, value in enumerate(found):
            axes.plot(value.times, value.values, color=LINES[number_ % len(LINES)], lw=1.4, label=value.name)
    top = axes.get_ylim()[1] if any(x > 0 for v in found for x in v.values) else 1.0
    limits = [s for s in field["thresholds"]["steps"] if s["value"] is not None]
    axes.set(xlim=(0, seconds), ylim=(0, field.get("max", top)))
    for limit in limits:
        if limit["value"] <= axes.get_ylim()[1]:
            axes.axhline(limit["value"], color=COLOURS[limit["color"]], lw=1, ls="--")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: spelled(y, unit)))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _time(axes)
    means = [f"{v.name}: {spelled(v.last, unit)}" for v in found[:SHOWN]]
    handles = axes.get_legend_handles_labels()[0][:SHOWN]
    longest = max(map(len, means))
    columns = max(1, int(axes.figure.get_figwidth() * axes.get_position().width * 14 / (longest + 5)))  # type: ignore[union-attr]
    rows = -(-len(means) // columns)
    size = 8.0 if rows <= 2 else 6.5 if rows <= 4 else 5.5
    axes.legend(
        handles, means, loc="upper left", bbox_to_anchor=(-0.06, -0.15), ncols=columns, fontsize=size, frameon=False,
        handlelength=1.0, columnspacing=1.0, borderaxespad=0, labelspacing=0.2,
    )  # fmt: skip


def _stack(axes: Axes, found: Sequence[Value]) -> None:
    times = sorted({t for value in found for t in value.times})
    rows = [[dict(zip(v.times, v.values, strict=True)).get(t, 0.0) for t in times] for v in found]
    axes.stackplot(times, rows, labels=[v.name for v in found], colors=LINES[: len(found)], alpha=0.75)


def number(axes: Axes, found: Sequence[Value], field: Mapping[str, Any]) -> None:
    """The last value, large."""
    value = found[0].last
    axes.text(
        0.5, 0.36, spelled(value, field["unit"]), ha="center", va="center", fontsize=22, weight="bold",
        color=colour(value, field), transform=axes.transAxes,
    )  # fmt: skip


def bars(axes: Axes, found: Sequence[Value], field: Mapping[str, Any]) -> None:
    """The last values, side by side."""
    ordered = list(reversed(found))
    top = field.get("max", max((v.last for v in ordered), default=1.0)) or 1.0
    axes.barh(
        range(len(ordered)), [v.last for v in ordered], color=[colour(v.last, field) for v in ordered], height=0.5
    )
    axes.set(xlim=(0, top * 1.6), ylim=(-0.6, len(ordered) - 0.4), xticks=[], yticks=[])
    for at, value in enumerate(ordered):
        label = f"{value.name}: {spelled(value.last, field['unit'])}"
        axes.text(max(value.last, 0.0) + top * 0.02, at, label, va="center", fontsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)


def states(axes: Axes, found: Sequence[Value], seconds: float) -> None:
    """Green while the answer is yes, red while it is no."""
    for at, value in enumerate(reversed(found)):
        ends = [*value.times[1:], value.times[-1] + 1]
        for begin, end, yes in zip(value.times, ends, value.values, strict=True):
            axes.barh(at, end - begin, left=begin, height=0.8, color=COLOURS["green" if yes else "red"], lw=0)
        axes.text(seconds * 0.01, at, value.name, va="center", fontsize=9, color="white", weight="bold")
    axes.set(xlim=(0, seconds), ylim=(-0.6, len(found) - 0.4), yticks=[])
    _time(axes)


def _time(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{int(t) // 60}:{int(t) % 60:02d}"))
    axes.tick_params(labelsize=8, color="#999999")
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
