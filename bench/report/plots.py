"""Held-out loss against wall-clock, a picture a task. Knows curves, not where they come from."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.report.measure import RESULTS

Curve = Sequence[tuple[float, float]]  # (seconds, held-out loss in nats), as it went

# Contenders keep colour and dash whatever the task, and are told apart without colour too.
STYLES: Final = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#000000", "-"),
    ("#999999", "--"),
)


def loss_against_time(
    tasks: Mapping[str, Mapping[str, Curve]], folder: Path = RESULTS, target: Mapping[str, float] | None = None
) -> dict[str, Path]:
    """Writes loss-<task>.png into `folder` for each task's {contender: curve} and returns the paths. Time is drawn on
    a logarithmic axis, since contenders are factors apart: points at 0 s are drawn at the first time that is not.
    `target` draws a task's target loss."""
    from matplotlib.figure import Figure  # of the demo extra

    names = list(dict.fromkeys(name for curves in tasks.values() for name in curves))
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for task, curves in tasks.items():
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        positive = [seconds for curve in curves.values() for seconds, _ in curve if seconds > 0]
        least = min(positive, default=1.0)
        for name, curve in curves.items():
            colour, dash = STYLES[names.index(name) % len(STYLES)]
            axes.plot(
                [max(s, least) for s, _ in curve], [loss for _, loss in curve], dash, color=colour, label=name, lw=1.6
            )
        if target is not None and task in target:
            axes.axhline(target[task], color="#666666", lw=0.8)
            axes.annotate("target", (1, target[task]), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        axes.set_xscale("log")
        axes.set(xlabel="wall-clock seconds", ylabel="held-out loss, nats a row", title=task)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        written[task] = folder / f"loss-{re.sub(r'[^a-z0-9]+', '-', task.lower()).strip('-')}.png"
        figure.savefig(written[task], dpi=150)
    return written
