"""`python -m bench.study.drift [--threads N] [--out FILE]`: how far presets take the model from its base, and what
decay does about it.

The presets of four methods on the demo's model and tasks, seed 0, each with the weight decays of DECAYS: the loss on
held-out rows that nothing was chosen on, and the drift of where the run ends, by the function that every job is told
its own by. Cells are written one by one, and those of the file are not run again.
"""

from typing import Any, Final

from bench.study import small
from bench.study.lines import Line, Task

B: Final[dict[str, Any]] = {"learning_rate": 0.3, "eps": 1e-2, "a_factor": 0.0}
# The presets for classification with activation `answer` as they were on 2026-11-30: steps, settings, shape.
PRESETS: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "first_order": (24, {"learning_rate": 2e-3, "batch_size": 8, "repeat": 4}),
    "mezo": (30, {**B, "estimator": "population", "queries": 16, "clip": 5.0, "batch_size": 2, "repeat": 1}),
    "fzoo": (24, {**B, "queries": 15, "batch_size": 4, "repeat": 4}),
    "es": (40, {**B, "queries": 16, "batch_size": 4, "repeat": 4}),
}
# AdamW's rate is 2e-3 here: its largest decay takes 2 % off the adapter in all.
DECAYS: Final[dict[str, tuple[float, ...]]] = {
    "first_order": (0.0, 1.0), "mezo": (0.0, 0.3, 1.0), "fzoo": (0.0, 0.3, 1.0), "es": (0.0, 0.3, 1.0),
}  # fmt: skip
TASKS: Final[tuple[Task, ...]] = ("sentiment", "topic")


def lines() -> list[Line]:
    """One a method and decay."""
    return [_line(method, decay) for method, decays in DECAYS.items() for decay in decays]


def _line(method: str, decay: float) -> Line:
    steps, own = PRESETS[method]
    fields = {"schedule": "linear", "targets": ("v_proj", "o_proj"), "rank": 8, **own, "weight_decay": decay}
    return Line(f"{method}, decay {decay:g}", "drift", method, fields, (steps // 2, steps), budget=1e9)


def table(found: dict[str, Any]) -> str:
    """What the file has, a row a line, both tasks beside each other."""
    out = [
        "| method | decay | steps | sentiment: loss | accuracy | drift | topic: loss | accuracy | drift |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, decays in DECAYS.items():
        for decay in decays:
            cells = [found.get(f"{method}, decay {decay:g} / answer / {task} / seed 0") for task in TASKS]
            steps = next((str(cell["points"][-1]["step"]) for cell in cells if cell), "")
            said = " | ".join(_end(cell) for cell in cells)
            out.append(f"| {method} | {decay:g} | {steps} | {said} |")
    return "\n".join(out)


def _end(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "not measured | | "
    loss, accuracy = cell["points"][-1]["report"]
    drift = "not measured" if cell["drift"] is None else f"{cell['drift']:.4f}"
    return f"{loss:.3f} | {accuracy:.3f} | {drift}"


if __name__ == "__main__":
    small.main("drift", __doc__, lines(), TASKS, table)
