"""`python -m bench.study.completions [--threads N] [--out FILE]`: what rows of `prompt` and `completion` teach, by
method, on held-out rows of two packaged corpora.

`written`: BBC news items and their topic as a word, of the whole vocabulary and not among choices. `reviews`: film
reviews of one sentence, after the same words each: a way of writing rather than an answer. Activation `answer`, the
shapes of the study's own lines; losses are nats a token, seconds of the processor.
"""

from collections.abc import Mapping
from typing import Any, Final

from bench.study import small
from bench.study.lines import Line, Task

TASKS: Final[tuple[Task, ...]] = ("written", "reviews")
POINTS: Final = (8, 16, 24)
B: Final[Mapping[str, Any]] = {"eps": 1e-2, "a_factor": 0.0}
POPULATION: Final[Mapping[str, Any]] = {"estimator": "population", "queries": 16, "clip": 5.0}


def lines() -> list[Line]:
    """One a method."""
    return [
        _line("first order 2e-3", "first_order", 2e-3, batch_size=8),
        _line("strategy 0.3", "es", 0.3, queries=16, **B),
        _line("strategy 0.3, last 16", "es", 0.3, queries=16, layers="last:16", **B),
        _line("population 0.15", "mezo", 0.15, **POPULATION, **B),
        _line("fzoo 0.3", "fzoo", 0.3, queries=15, **B),
        _line(
            "hybrid 2e-3, 8 layers", "hybrid", 2e-3, batch_size=8, zo_learning_rate=0.02, zo_clip=5.0, top_layers=8, **B
        ),
    ]


def _line(name: str, method: str, rate: float, **fields: Any) -> Line:
    shape = {"batch_size": 4, "repeat": 4, "learning_rate": rate, "schedule": "linear", "targets": ("v_proj", "o_proj")}
    return Line(name, "completions", method, {**shape, **fields}, POINTS, budget=1e9, objective="lm")


def table(found: dict[str, Any]) -> str:
    """What the file has, a row a task and line; the bare base first."""
    out = ["| task | line | seconds | loss after 8 | after 24 | tokens right |", "|---|---|---|---|---|---|"]
    for task in TASKS:
        own = [cell for cell in found.values() if cell["task"] == task]
        for cell in own[:1]:
            loss, right = cell["points"][0]["report"]
            out.append(f"| {task} | bare base | 0 | {loss:.3f} | {loss:.3f} | {right:.3f} |")
        for cell in sorted(own, key=lambda one: float(one["points"][-1]["report"][0])):
            early, last = cell["points"][1], cell["points"][-1]
            loss, right = last["report"]
            spent = last["seconds"] + last["prompts"]
            out.append(
                f"| {task} | {cell['line']} | {spent:.0f} | {early['report'][0]:.3f} | {loss:.3f} | {right:.3f} |"
            )
    return "\n".join(out)


if __name__ == "__main__":
    small.main("completions", __doc__, lines(), TASKS, table)
