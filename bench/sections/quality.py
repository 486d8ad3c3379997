"""`python -m bench.sections.quality`: held-out loss and accuracy against steps, activations, seeds and tasks.

What a step learns does not depend on who computes it (the contenders' losses agree to rounding, which `bench` asserts),
so one curve serves them all: wall-clock to a loss is its step times a contender's seconds a step. Knows the trainer and
the demo's tasks; seconds are `bench`'s to measure.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from bench.report.measure import RESULTS

COMMITTED = RESULTS / "quality.json"
TASKS = ("sentiment", "topic")
ACTIVATIONS = ("answer", "all")
SEEDS = (0, 1, 2)
ROWS, EVERY = 150, 40  # held-out rows, steps between evaluations


@dataclass
class Curve:
    """One run: what was asked beside the preset, and (steps, held-out loss in nats a row, accuracy) as it went."""

    task: str
    activation: str
    seed: int
    fields: dict[str, Any]
    points: list[tuple[int, float, float]] = field(default_factory=list)
    failed: str | None = None
    tokens: int = 0  # scored by its probes
    rows: int = 0  # of its training file
    batch: int = 0
    repeat: int = 1
    prompt: float = 0.0  # tokens before the invocation, a row


def train(base: Any, scorer: Any, asked: Sequence[Curve], rows: int, say: Any) -> None:
    """Fill the curves: all of them as one cohort, evaluated on the first `rows` held-out rows."""
    from bench.workloads import invocation_of
    from cli.demo.datasets import write
    from db.contract.presets import resolve
    from db.contract.spec import JobSpec
    from worker.runs import cohort
    from worker.runs.data import Dataset, examples
    from worker.runs.run import start

    runs, datasets = [], {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: path.read_bytes() for name, path in write(Path(folder)).items()}
    for number, curve in enumerate(asked):
        parts = [files[f"{curve.task}_{part}"] for part in ("train", "valid")]
        ids = invocation_of(base, *parts) if curve.activation == "answer" else ()
        ids = ids[len(ids) - curve.fields.get("ends", len(ids)) :]
        given = {k: v for k, v in curve.fields.items() if k != "ends"}
        given |= {"activation": curve.activation, "invocation": ids, "seed": curve.seed}
        key = curve.task, ids
        if key not in datasets:
            datasets[key] = Dataset(*(examples(base, part, None, ids) for part in parts))
        rows_there = datasets[key].train
        whole = resolve(given, base, "choice", len(rows_there), rows)
        curve.rows, curve.batch, curve.repeat = len(rows_there), whole["batch_size"], whole["repeat"]
        curve.prompt = sum(e.start for e in rows_there) / len(rows_there)
        spec = JobSpec(model=base.name, training_file=curve.task, validation_file=curve.task, **whole)
        runs.append(start(str(number), spec, base, datasets[key], "bench"))
    begun = time.monotonic()
    while runs:
        stepped = cohort.step(runs, scorer)
        for run, result in stepped:
            curve = asked[int(run.job_id)]
            curve.tokens += result.tokens
            if (e := result.evaluation) is not None:
                curve.points.append((e.step, e.loss, e.accuracy or 0.0))
                say(
                    f"{time.monotonic() - begun:6.0f} s  {curve.task} {curve.activation} seed {curve.seed} "
                    f"{curve.fields}: step {e.step} loss {e.loss:.4f} accuracy {e.accuracy or 0.0:.3f}"
                )
            curve.failed = run.failed
        runs = [run for run, _ in stepped if not run.done]


def steps_to(points: Sequence[tuple[int, float, float]], loss: float) -> float | None:
    """Steps until the held-out loss first reaches `loss`, between evaluations by a straight line; None where never."""
    before = None
    for step, value, _ in points:
        if value <= loss:
            if before is None:
                return float(step)
            return before[0] + (step - before[0]) * (before[1] - loss) / (before[1] - value)
        before = step, value
    return None


def best(curve: Curve) -> float:
    return min(loss for _, loss, _ in curve.points)


def mean(curves: Sequence[Curve]) -> list[tuple[int, float, float]]:
    """(steps, loss, accuracy) in the mean over seeds, as far as all of them go."""
    return [
        (points[0][0], sum(p[1] for p in points) / len(points), sum(p[2] for p in points) / len(points))
        for points in zip(*(c.points for c in curves), strict=False)
    ]


def settled(curves: Sequence[Curve], compare: dict[str, Any]) -> dict[str, Any]:
    """Wall-clock of every contender to a task's target, and its curve: steps times its seconds a step on the preset's
    workload, and for activation `answer` the prompts met so far at its seconds a prompt token. A task's target is the
    lowest loss that the mean curves of both activations reach. Evaluations and start-up are left out for everyone."""
    out: dict[str, Any] = {"target": {}, "to target": {}, "mean": {}, "wall-clock": {}}
    for task in dict.fromkeys(c.task for c in curves):
        lines: dict[str, list[tuple[float, float]]] = {}
        by = {a: [c for c in curves if (c.task, c.activation) == (task, a)] for a in ACTIVATIONS}
        by = {a: own for a, own in by.items() if own}
        target = out["target"][task] = max(min(loss for _, loss, _ in mean(own)) for own in by.values())
        for activation, own in by.items():
            name = f"preset, {task}" + (", answer" if activation == "answer" else "")
            points = mean(own)
            out["mean"][f"{task}, {activation}"] = points
            reached = steps_to(points, target)
            for who, c in compare.get(name, {}).get("contenders", {}).items():
                prompts = c.get("prompt seconds", 0) / c["prompt tokens"] if "prompt tokens" in c else 0.0
                if activation == "answer" and not prompts and who not in ("official style", "strongest loop"):
                    continue

                def seconds(steps: float, c: Any = c, prompts: float = prompts, curve: Curve = own[0]) -> float:
                    return float(steps * c["seconds a step"]["median"] + prompts * met(curve, steps))

                if activation == "all" or prompts:  # without a cache `answer` saves a loop nothing
                    lines[f"{who}, {activation}"] = [(seconds(s), loss) for s, loss, _ in points]
                if reached is not None:
                    out["to target"].setdefault(name, {})[who] = seconds(reached)
        out["wall-clock"][task] = lines
    return out


def met(curve: Curve, steps: float) -> float:
    """Prompt tokens that so many steps of a run meet for the first time, in the mean."""
    rows = min(-(-steps // curve.repeat) * curve.batch, curve.rows)
    return rows * curve.prompt


def trained(home: Path, asked: Sequence[Curve], rows: int, say: Any) -> list[Curve]:
    """The curves filled, those of one activation as one cohort, on an engine of their own."""
    from cli.local.demo_model import DEMO_MODEL, demo_model
    from db.contract.tokens.base_model import open_base
    from worker.scoring.engine_scorer import EngineScorer

    base = open_base(DEMO_MODEL, str(demo_model(home)))
    scorer = EngineScorer(str(base.source), prompt_bytes=4 << 30, slots=64)
    for activation in ACTIVATIONS:
        if some := [c for c in asked if c.activation == activation]:
            train(base, scorer, some, rows, say)
    scorer.close()
    return list(asked)


def section(home: Path, compare: dict[str, Any], say: Any, curves: Sequence[Curve] | None = None) -> dict[str, Any]:
    """The quality section of `bench`: the presets' curves (those given, or trained now), what they come to and their
    pictures."""
    from bench.report.plots import loss_against_time

    if curves is None:
        asked = [
            Curve(task, activation, seed, {"eval_every": EVERY})
            for activation in ACTIVATIONS
            for task in TASKS
            for seed in (SEEDS if activation == "answer" else SEEDS[:2])
        ]
        curves = trained(home, asked, ROWS, say)
    found = settled(curves, compare)
    loss_against_time(found["wall-clock"], target=found["target"])
    return {**found, "held-out rows": ROWS, "curves": [asdict(c) for c in curves]}


def main() -> None:
    """Trains the grid of KEY=JSON-LIST arguments, presets without one, and writes the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=ACTIVATIONS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--rows", type=int, default=ROWS, help="held-out rows")
    parser.add_argument("--grid", nargs="*", default=[], help='candidates, as learning_rate="[1e-3,2e-3]"')
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--out", type=Path, default=COMMITTED)
    arguments = parser.parse_args()
    from worker.environment import prepare

    prepare(0, "bench.sections.quality")
    from bench.report.measure import machine

    keys = [word.partition("=")[0] for word in arguments.grid]
    values = [json.loads(word.partition("=")[2]) for word in arguments.grid]
    asked = [
        Curve(task, activation, seed, dict(zip(keys, chosen, strict=True)))
        for activation in arguments.activations
        for task, chosen, seed in product(arguments.tasks, product(*values), arguments.seeds)
    ]
    curves = trained(arguments.home, asked, arguments.rows, lambda line: print(line, flush=True))
    for curve in curves:
        last = curve.points[-1]
        print(
            f"{curve.task:<10} {curve.activation:<7} seed {curve.seed} {curve.fields}  start {curve.points[0][1]:.4f}  "
            f"best {best(curve):.4f}  end {last[1]:.4f} accuracy {last[2]:.3f}  {curve.failed or ''}"
        )
    found = {"machine": machine(), "held-out rows": arguments.rows, "curves": [asdict(c) for c in curves]}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found) + "\n")
    print(f"written to {arguments.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
