"""A study of a few lines with a JSON of its own: what the file has not is run, cell by cell, then its table printed."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.report.measure import RESULTS
from bench.study.lines import Cell, Line, Task

Cells = dict[str, Any]  # by a cell's key, as `bench.study.store.Measured` is written


def main(
    name: str, about: str | None, lines: Iterable[Line], tasks: Sequence[Task], table: Callable[[Cells], str]
) -> None:
    """The command `python -m bench.study.NAME`; every line on every task under seed 0, to bench/results/NAME.json."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.study.{name}", description=about)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--home", type=Path, default=Path(".onward/bench"))
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    parser.add_argument("--table", action="store_true", help="print what there is, run nothing")
    arguments = parser.parse_args()
    study = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"machine": None, "cells": {}}
    if not arguments.table:
        _run(name, arguments, study, [Cell(line, task, 0) for line in lines for task in tasks])
    print(table(study["cells"]))


def _run(name: str, arguments: argparse.Namespace, study: dict[str, Any], cells: list[Cell]) -> None:
    from worker.environment import prepare

    prepare(arguments.threads, f"bench.study.{name}")
    from bench.report.measure import machine
    from bench.study.train import opened

    study["machine"] = {**machine(), "threads": arguments.threads}
    bench = opened(arguments.home, 0)
    for cell in cells:
        if cell.key in study["cells"]:
            continue
        measured = bench.run(cell, lambda said: print(said, file=sys.stderr, flush=True))
        study["cells"][cell.key] = asdict(measured)
        arguments.out.write_text(json.dumps(study, indent=1, sort_keys=True) + "\n")
    bench.close()
