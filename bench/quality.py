"""`python -m bench.quality`: held-out loss and accuracy against steps, both activations, several seeds, two tasks.

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

RESULTS = Path(__file__).parent / "results" / "quality.json"
TASKS = ("sentiment", "topic")
SEEDS = (0, 1, 2)


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


def invocation(base: Any, files: Sequence[bytes]) -> tuple[int, ...]:
    """What `auto` means for these JSONL files, as the API finds it."""
    from db import invocation as ours
    from db.encoding import encode_rows
    from db.rows import parse

    tails = []
    for raw in files:
        tail = None
        for line, row in enumerate(encode_rows(base, parse((raw,))), start=1):
            tail = ours.joined(tail, base, row, line)
        assert tail is not None
        tails.append(("file", tail))
    return ours.shared(base, tails)


def train(base: Any, scorer: Any, asked: Sequence[Curve], rows: int, say: Any) -> None:
    """Fill the curves: all of them as one cohort, evaluated on the first `rows` held-out rows."""
    from cli.datasets import write
    from db.presets import resolve
    from db.spec import JobSpec
    from worker import trainer
    from worker.data import Dataset, examples

    runs, datasets = [], {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: path.read_bytes() for name, path in write(Path(folder)).items()}
    for number, curve in enumerate(asked):
        parts = [files[f"{curve.task}_{part}"] for part in ("train", "valid")]
        ids = invocation(base, parts) if curve.activation == "answer" else ()
        ids = ids[len(ids) - curve.fields.get("ends", len(ids)) :]
        given = {k: v for k, v in curve.fields.items() if k != "ends"}
        given |= {"activation": curve.activation, "invocation": ids, "seed": curve.seed}
        key = curve.task, ids
        if key not in datasets:
            datasets[key] = Dataset(*(examples(base, part, None, ids) for part in parts))
        whole = resolve(given, base, "choice", len(datasets[key].train), rows)
        spec = JobSpec(model=base.name, training_file=curve.task, validation_file=curve.task, **whole)
        runs.append(trainer.start(str(number), spec, base, datasets[key], "bench"))
    begun = time.monotonic()
    while runs:
        runs = trainer.step(runs, scorer)
        for run in runs:
            curve = asked[int(run.job_id)]
            curve.tokens += run.tokens
            if (e := run.evaluation) is not None:
                curve.points.append((e.step, e.loss, e.accuracy))
                say(
                    f"{time.monotonic() - begun:6.0f} s  {curve.task} {curve.activation} seed {curve.seed} "
                    f"{curve.fields}: step {e.step} loss {e.loss:.4f} accuracy {e.accuracy:.3f}"
                )
            curve.failed = run.failed
        runs = [run for run in runs if not run.done]


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


def main() -> None:
    """Trains presets (or the grid of KEY=JSON-LIST arguments) and writes the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--activations", nargs="+", default=["answer", "all"])
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--rows", type=int, default=150, help="held-out rows")
    parser.add_argument("--grid", nargs="*", default=[], help='candidates, as learning_rate="[1e-3,2e-3]"')
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    from worker.environment import prepare

    prepare(0, "bench.quality")
    from bench.measure import machine
    from cli.assets import DEMO_MODEL, demo_model
    from db.bases import open_base
    from worker.scoring.vllm_scorer import VllmScorer

    base = open_base(DEMO_MODEL, str(demo_model(arguments.home)))
    keys = [word.partition("=")[0] for word in arguments.grid]
    values = [json.loads(word.partition("=")[2]) for word in arguments.grid]
    scorer = VllmScorer(str(base.source), prompt_bytes=4 << 30, slots=64)
    curves: list[Curve] = []
    for activation in arguments.activations:
        some = [
            Curve(task, activation, seed, dict(zip(keys, chosen, strict=True)))
            for task, chosen, seed in product(arguments.tasks, product(*values), arguments.seeds)
        ]
        train(base, scorer, some, arguments.rows, lambda line: print(line, flush=True))
        curves += some
    scorer.close()
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
