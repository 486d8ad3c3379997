"""A job's curves: what its events tell of losses, as points for a plot. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

Point = tuple[int, float, float]  # step, seconds since the job began, what was measured
MEASURES: Final = {"train": "train_loss", "valid": "valid_loss", "accuracy": "valid_mean_token_accuracy"}


def curves(told: Iterable[tuple[dict[str, Any], datetime]], began: datetime | None) -> dict[str, list[Point]]:
    """From metrics events (data, when), oldest first, the points of each measure; what was not finite is left out. A
    step that is told again (a run that went back) has its last value."""
    found: dict[str, dict[int, Point]] = {name: {} for name in MEASURES}
    for data, at in told:
        start = began if began is not None else at
        began = start
        seconds = max(0.0, (at - start).total_seconds())
        for name, key in MEASURES.items():
            if (value := data.get(key)) is not None:
                step = int(data["step"])
                found[name].pop(step, None)
                found[name][step] = (step, round(seconds, 3), float(value))
    return {name: sorted(points.values()) for name, points in found.items()}


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most about `most` points: every k-th, and always the last."""
    every = max(1, -(-len(points) // most))
    kept = list(points[::every])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def differences(specs: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """The settings in which jobs differ: a dotted name, and each job's value."""
    flat = [dict(_flat(spec)) for spec in specs]
    names = sorted(set().union(*flat))
    rows = [(name, [_said(one.get(name)) for one in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _said(value: Any) -> str:
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
