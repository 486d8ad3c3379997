"""`python -m bench.studies.cost_line`: what a forward of training costs by its scored tokens, and whether that moves a
preset's shape.

First ten shapes (probes by rows) of the demo's base, activation `all`, 64 to 2,048 scored tokens, interleaved in
rounds: processor and wall seconds of each, the less of its rounds, the straight line through them and what is left.
Then the study's own curves, priced anew: a line's steps and tokens to a loss do not depend on the machine, so with a
forward whose fixed part is worth so many tokens they say which shape would have been soonest there.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.report.measure import RESULTS, machine

SHAPES = ((1, 4), (2, 4), (2, 6), (4, 4), (4, 6), (8, 4), (8, 8), (16, 6), (16, 8), (32, 4))  # probes, rows
LENGTH = 16  # scored tokens of a row
WORTHS = (8, 32, 128, 512, 2048)  # tokens that the fixed part takes as long as
TARGETS = {"sentiment": 0.6, "topic": 0.8}  # nats a row, on the report split
ROW_NOISE = 1.4  # variance of a row's slope over the squared signal, at the start (docs/methods/auto.md)


class Reached(NamedTuple):
    """Of one line and shape: cells that came to their target, of so many, and the mean steps and tokens of those."""

    method: str
    probes: int
    rows: int
    reached: int
    cells: int
    steps: float
    tokens: float

    def cost(self, worth: float) -> float:
        """In scored tokens."""
        return self.steps * worth + self.tokens


def soonest(points: Sequence[Mapping[str, Any]], target: float) -> tuple[float, float] | None:
    """(steps, tokens) at which a curve first is at `target`, straight between its points; None where it never is."""
    before = points[0]
    for point in points[1:]:
        high, low = before["report"][0], point["report"][0]
        if low <= target:
            share = min(1.0, max(0.0, (high - target) / (high - low))) if high > low else 1.0
            steps = before["step"] + share * (point["step"] - before["step"])
            return steps, before["tokens"] + share * (point["tokens"] - before["tokens"])
        before = point
    return None


def lines(study: Mapping[str, Any]) -> Iterator[Reached]:
    """Of every line by forward passes alone of activation `answer` on the tasks that have a target."""
    found: dict[tuple[str, str, int, int], list[tuple[float, float] | None]] = defaultdict(list)
    for cell in study["cells"]:
        if cell["activation"] != "answer" or cell["autograd"] or cell["task"] not in TARGETS:
            continue
        last = cell["points"][-1]
        if not last["step"]:
            continue
        probes = round(last["forwards"] / last["step"])
        key = cell["line"], cell["method"], probes, cell["asked"]["batch_size"]
        found[key].append(soonest(cell["points"], TARGETS[cell["task"]]))
    for (_, method, probes, rows), cells in found.items():
        there = [cell for cell in cells if cell is not None]
        if there:
            steps, tokens = (sum(cell[i] for cell in there) / len(there) for i in (0, 1))
            yield Reached(method, probes, rows, len(there), len(cells), steps, tokens)


def modelled(worth: float, probes: int, row_tokens: float, most: int = 16) -> int:
    """The rows a step that the model says: progress of a step as q / (1 + v / b), its cost worth + q b t tokens."""

    def gain(rows: int) -> float:
        return probes / (1 + ROW_NOISE / rows) / (worth + probes * rows * row_tokens)

    return max(range(1, most + 1), key=gain)


def measure(base: Any, rounds: int) -> list[dict[str, float]]:
    """Each shape's least processor and wall seconds."""
    import numpy as np

    from worker.scoring.cost_line import RANK, row
    from worker.scoring.engine_scorer import EngineScorer
    from worker.types import Layout, Module, Trial

    scorer = EngineScorer(str(base.source), slots=32, max_rank=RANK, max_tokens=4096)
    modules = tuple(Module(*m) for m in base.modules if m[0].endswith(("v_proj", "o_proj")))
    layout, seen = Layout(RANK, 16.0, modules), dict.fromkeys(SHAPES, (1000000000.0, 1000000000.0))
    params = np.zeros(layout.size, np.float32)
    for round_ in range(rounds + 1):
        for probes, rows in SHAPES:
            text = row(LENGTH, base.vocab)
            trials = [Trial(layout, params, (text,) * rows, "lm") for _ in range(probes)]
            used, began = time.process_time(), time.perf_counter()
            scorer.score(trials)
            took = time.process_time() - used, time.perf_counter() - began
            if round_:  # the first is for what a first time makes ready
                seen[probes, rows] = tuple(map(min, zip(seen[probes, rows], took, strict=True)))  # type: ignore[assignment]
    scorer.close()
    return [
        {"probes": p, "rows": r, "tokens": p * r * LENGTH, "processor": seen[p, r][0], "wall": seen[p, r][1]}
        for p, r in SHAPES
    ]


def report(shapes: list[dict[str, float]], clock: str) -> dict[str, float]:
    """Prints the line of one clock and what each shape is off by."""
    from worker.scoring.cost_line import fitted

    line = fitted([(int(s["tokens"]), s[clock]) for s in shapes])
    print(f"{clock}: {line.fixed:.4f} + {line.token:.6f} x scored tokens s; reading is worth {line.worth:.0f} tokens")
    for s in shapes:
        off = line.seconds(int(s["tokens"])) / s[clock] - 1
        print(f"  {s['probes']:>3} x {s['rows']:<3} {s['tokens']:>5} tokens {s[clock]:8.3f} s, line {off:+.1%}")
    return {"fixed": line.fixed, "token": line.token, "error": line.error}


def priced(study: Mapping[str, Any]) -> None:
    """Prints the soonest line of each shape that got there on half of its cells, at each worth of the fixed part."""
    known = [line for line in lines(study) if 2 * line.reached >= line.cells]
    for worth in WORTHS:
        best: dict[tuple[int, int], Reached] = {}
        for line in sorted(known, key=lambda line: line.cost(worth)):
            best.setdefault((line.probes, line.rows), line)
        ranked = list(best.values())[:6]
        said = (f"{x.probes}x{x.rows} {x.method} {x.cost(worth):.0f} ({x.reached}/{x.cells})" for x in ranked)
        print(f"fixed part worth {worth:>5} tokens; model: {modelled(worth, 16, 4)} rows; {', '.join(said)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--priced", action="store_true", help="only price the study's curves anew")
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--out", type=Path, default=RESULTS / "cost_line.json")
    asked = parser.parse_args()
    if not asked.priced:
        from worker.environment import prepare

        prepare(0, "bench.studies.cost_line")
        from cli.local.demo_model import DEMO_MODEL, demo_model
        from db.contract.tokens.base_model import open_base

        shapes = measure(open_base(DEMO_MODEL, str(demo_model(asked.home))), asked.rounds)
        found = {clock: report(shapes, clock) for clock in ("processor", "wall")}
        asked.out.write_text(json.dumps({"machine": machine(), "shapes": shapes, "lines": found}, indent=1) + "\n")
    priced(json.loads((RESULTS / "study.json").read_text()))


if __name__ == "__main__":
    main()
