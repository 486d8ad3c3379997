"""`python -m bench.study.depth [--threads N] [--out FILE]`: what an adapter on the last k layers alone costs, and
learns.

Evolution strategy on the demo's model and tasks (16 probes of B alone on 4 rows that serve 4 steps, 24 steps), the same
at every k; k is 30 for all layers. Losses are of held-out rows that nothing was chosen on; seconds are of the
processor, the base's own share (prompts, what lies below the adapter) counted at the first visit. Cells are written
one by one, and those of the file are not run again.
"""

from typing import Any, Final

from bench.study import small
from bench.study.lines import Line, Task
from db.contract.methods.base import Activation

LAYERS: Final = 30
DEPTHS: Final = (30, 16, 8, 4, 2)
OURS: Final[dict[str, Any]] = {
    "targets": ("v_proj", "o_proj"), "eps": 1e-2, "a_factor": 0.0, "queries": 16, "learning_rate": 0.3,
    "schedule": "linear", "batch_size": 4, "repeat": 4,
}  # fmt: skip
TASKS: Final[tuple[Task, ...]] = ("sentiment", "topic")
ACTIVATIONS: Final[tuple[Activation, ...]] = ("answer", "all")


def lines() -> list[Line]:
    """One a depth and activation."""
    return [
        Line(f"last {k}", "depth", "es", {**OURS, **_layers(k)}, (12, 24), activation, 1e9)
        for activation in ACTIVATIONS
        for k in DEPTHS
    ]


def _layers(k: int) -> dict[str, str]:
    return {} if k == LAYERS else {"layers": f"last:{k}"}


def table(found: dict[str, Any]) -> str:
    """What the file has, a row a line and task."""
    out = [
        "| activation, task | layers | seconds a step | of prompts | loss after 12 | after 24 | accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in sorted(found.values(), key=lambda one: (one["activation"], one["task"], -int(one["line"][5:]))):
        first, last = cell["points"][-2], cell["points"][-1]
        each = last["seconds"] / last["step"]
        out.append(
            f"| {cell['activation']}, {cell['task']} | {cell['line'][5:]} | {each:.2f} | {last['prompts']:.1f} | "
            f"{first['report'][0]:.3f} | {last['report'][0]:.3f} | {last['report'][1]:.3f} |"
        )
    return "\n".join(out)


if __name__ == "__main__":
    small.main("depth", __doc__, lines(), TASKS, table)
