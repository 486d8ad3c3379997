"""`db/contract/evidence.py` from the study: the best line of each method, and what it was measured to take."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final

from bench.study.figures import all_seconds, chosen, grouped, mean
from bench.study.grid import LINES
from bench.study.lines import DROPS, SEEDS, TASKS, objective_of
from bench.study.store import Measured, Study
from cli.demo import chat
from db.contract import methods
from db.contract.methods.base import Activation, Evidence, Preset

MODEL: Final = "smollm2*"
EPOCHS: Final = Preset.epochs  # where nothing is said
ACTIVATIONS: Final[tuple[Activation, ...]] = ("answer", "all")
SHAPE = ("steps", "batch_size", "repeat", "eval_every")
UNSAID: Final = ("name", "profile")  # of a cell's settings: a profile is named by who sends the job
HEAD = '''"""What the study measured of each method; `python -m bench.study --presets` writes it from the JSON."""

from typing import Final

from db.contract.methods.base import Evidence, Preset

__all__ = ["EVIDENCE", "Evidence"]

# The study's best line of each method; of one kind of job the least seconds come first.
EVIDENCE: Final[tuple[Evidence, ...]] = ('''


def evidence(study: Study) -> list[Evidence]:
    """The best line of every method that was measured on all tasks of an objective, of each activation soonest first.
    The target is the late drop where a method without autograd has reached it on every task under every seed of the
    study, else the early one: one lucky seed makes no line of three look as if it did not get there."""
    found, best = grouped(study), chosen(study, "method")
    every: list[Evidence] = []
    for objective, activation in product(TASKS, ACTIVATIONS):
        own = {method: found[key] for (method, *of), key in best.items() if of == [objective, activation]}
        forward = [by_task for by_task in own.values() if _forward(by_task)]
        name = "late" if any(_whole(by_task) and all_seconds(by_task, "late") for by_task in forward) else "early"
        made = [_evidence(method, activation, by_task, name) for method, by_task in own.items()]
        every += sorted(made, key=lambda e: (e.seconds is None, e.seconds or 0.0, -(e.accuracy or 0.0)))
    return every


def _forward(by_task: Mapping[str, Sequence[Measured]]) -> bool:
    return not next(iter(by_task.values()))[0].autograd


def _whole(by_task: Mapping[str, Sequence[Measured]]) -> bool:
    return all(len(cells) >= len(SEEDS) for cells in by_task.values())


def source(study: Study) -> str:
    """The file's text."""
    made = evidence(study)
    if not made:
        return HEAD + ")\n"
    return "\n".join([HEAD, *(line for one in made for line in _written(one)), ")"]) + "\n"


def _evidence(method: str, activation: Activation, by_task: Mapping[str, Sequence[Measured]], name: str) -> Evidence:
    cells = [cell for own in by_task.values() for cell in own]
    seconds = all_seconds(by_task, name)
    objective = objective_of(cells[0].task)
    spreads = [
        s for s in (mean(c.points[-1].report[0] for c in own).spread for own in by_task.values()) if s is not None
    ]
    return Evidence(
        model=MODEL,
        objective=objective,
        activation=activation,
        method=method,
        preset=_preset(cells[0]),
        target=round(statistics.fmean(by_task[t][0].points[0].report[0] - DROPS[name][t] for t in by_task), 3),
        seconds=None if seconds is None else round(seconds, 1),
        accuracy=round(statistics.fmean(c.points[-1].report[1] for c in cells), 3),
        spread=round(statistics.fmean(spreads), 3) if spreads else None,
        seeds=min(map(len, by_task.values())),
        autograd=cells[0].autograd,
    )


def _preset(cell: Measured) -> Preset:
    """What its spec was made from, evaluated as often as the study did at first; what equals a default is not said."""
    asked = cell.asked
    first = next((line.points[0] for line in LINES if line.name == cell.line), cell.points[1].step)
    said = {k: v for k, v in asked["method"].items() if k not in UNSAID and v is not None}
    settings = {k: v for k, v in said.items() if v != _default(cell, k)}
    adapter, steps, epochs = asked["adapter"], asked["steps"], EPOCHS
    if objective_of(cell.task) == "lm":  # ten rows were visited so often: of more rows, as many visits, not steps
        steps, epochs = _own(cell), -(-steps * asked["batch_size"] // (asked["repeat"] * len(chat.rows())))
    return Preset(
        steps=steps,
        batch_size=asked["batch_size"],
        repeat=asked["repeat"],
        eval_every=first,
        rank=adapter["rank"],
        alpha=adapter["alpha"],
        targets=tuple(adapter["targets"]),
        last=len(adapter.get("layers", ())),
        settings=settings,
        epochs=epochs,
    )


def _own(cell: Measured) -> int:
    """The most steps that the method's own preset for any model has: what a line of a small file says nothing of."""
    lines = methods.ARMS[cell.method].presets
    return next(one.preset.steps for one in lines if one.model == "*" and one.activation == cell.activation)


def _default(cell: Measured, field: str) -> Any:
    return methods.ARMS[cell.method].model_fields[field].default


def _written(one: Evidence) -> Iterator[str]:
    yield "    Evidence("
    for name in ("model", "objective", "activation", "method"):
        yield f'        {name}="{getattr(one, name)}",'
    yield from _preset_written(one.preset)
    for name in ("target", "seconds", "accuracy", "spread", "seeds", "autograd"):
        yield f"        {name}={getattr(one, name)!r},"
    yield "    ),"


def _preset_written(preset: Preset) -> Iterator[str]:
    yield "        preset=Preset("
    for name in SHAPE:
        yield f"            {name}={getattr(preset, name)!r},"
    targets = ", ".join(f'"{target}"' for target in preset.targets)
    yield f"            rank={preset.rank!r},"
    yield f"            alpha={preset.alpha!r},"
    yield f"            targets=({targets}{',' if len(preset.targets) == 1 else ''}),"
    if preset.last:
        yield f"            last={preset.last!r},"
    yield "            settings={"
    for key, value in preset.settings.items():
        yield f'                "{key}": {_literal(value)},'
    yield "            },"
    if preset.epochs != EPOCHS:
        yield f"            epochs={preset.epochs!r},"
    yield "        ),"


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
