"""`python -m bench.study.depth [--threads N] [--out FILE]`: what an adapter on the last k layers alone costs, and
learns.

Evolution strategy on the demo's model and tasks (16 probes of B alone on 4 rows that serve 4 steps, 24 steps), the same
at every k; k is 30 for all layers. Losses are of held-out rows that nothing was chosen on; seconds are of the
processor, the base's own share (prompts, what lies below the adapter) counted at the first visit. Cells are written
one by one, and those of the file are not run again.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.report.measure import RESULTS
from bench.study.lines import Cell, Line, Task
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


def main() -> None:
    """Runs what the file has not, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--home", type=Path, default=Path(".onward/bench"))
    parser.add_argument("--out", type=Path, default=RESULTS / "depth.json")
    parser.add_argument("--table", action="store_true", help="print what there is, run nothing")
    arguments = parser.parse_args()
    study = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"machine": None, "cells": {}}
    if not arguments.table:
        _run(arguments, study)
    print(table(study["cells"]))


def _run(arguments: argparse.Namespace, study: dict[str, Any]) -> None:
    from worker.environment import prepare

    prepare(arguments.threads, "bench.study.depth")
    from bench.report.measure import machine
    from bench.study.train import opened

    study["machine"] = {**machine(), "threads": arguments.threads}
    bench = opened(arguments.home, 0)
    for line in lines():
        for task in TASKS:
            cell = Cell(line, task, 0)
            if cell.key in study["cells"]:
                continue
            measured = bench.run(cell, lambda said: print(said, file=sys.stderr, flush=True))
            study["cells"][cell.key] = asdict(measured)
            arguments.out.write_text(json.dumps(study, indent=1, sort_keys=True) + "\n")
    bench.close()


if __name__ == "__main__":
    main()
