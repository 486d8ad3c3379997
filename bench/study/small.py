"""A study of a few lines with a JSON of its own: what the file has not is run, cell by cell, then its table printed."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from bench.report.measure import RESULTS
from bench.study.lines import Cell, Line, Task

Cells = dict[str, Any]  # by a cell's key, as `bench.study.store.Measured` is written
DEMO: Final[tuple[Task, ...]] = ("sentiment", "topic")
UNKNOWN: Final = "not measured"


def main(
    name: str, about: str | None, lines: Iterable[Line], tasks: Sequence[Task], table: Callable[[Cells], str]
) -> None:
    """The command `python -m bench.study.NAME`; every line on every task under seed 0, or those that are asked for, to
    bench/results/NAME.json."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.study.{name}", description=about)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--home", type=Path, default=Path(".onward/bench"))
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    parser.add_argument("--lines", nargs="+", default=(), metavar="LINE", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0,))
    parser.add_argument("--table", action="store_true", help="print what there is, run nothing")
    arguments = parser.parse_args()
    study = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"machine": None, "cells": {}}
    if not arguments.table:
        chosen = [line for line in lines if not arguments.lines or line.name in arguments.lines]
        _run(
            name, arguments, study, [Cell(line, task, s) for s in arguments.seeds for line in chosen for task in tasks]
        )
    print(table(study["cells"]))


def _run(name: str, arguments: argparse.Namespace, study: dict[str, Any], cells: list[Cell]) -> None:
    from worker.environment import prepare

    prepare(arguments.threads, f"bench.study.{name}")
    from bench.report.measure import machine
    from bench.study.train import opened

    study["machine"] = {**machine(), "threads": arguments.threads}
    left = [cell for cell in cells if cell.key not in study["cells"]]
    for dtype in dict.fromkeys(cell.line.dtype for cell in left):  # one engine at a time
        bench = opened(arguments.home, 0, dtype)
        for cell in left:
            if cell.line.dtype == dtype:
                measured = bench.run(cell, lambda said: print(said, file=sys.stderr, flush=True))
                study["cells"][cell.key] = asdict(measured)
                arguments.out.write_text(json.dumps(study, indent=1, sort_keys=True) + "\n")
        bench.close()


def ends(found: Cells, groups: Mapping[str, Sequence[Line]], tasks: Sequence[Task] = DEMO) -> str:
    """What the file has, a row a line and seed's worth of both tasks; before each group, where it began."""
    said = " | ".join(f"{task}: loss after 12 | after 24 | accuracy | drift" for task in tasks)
    out = [f"| line | {said} |", "|---|" + "---|" * 4 * len(tasks)]
    for start, lines in groups.items():
        first = [_of(found, lines, task)[:1] for task in tasks]
        out.append(f"| {start} | " + " | ".join(_start(cells) for cells in first) + " |")
        out += [
            f"| {line.name} | " + " | ".join(_end(_of(found, [line], task)) for task in tasks) + " |" for line in lines
        ]
    return "\n".join(out)


def _of(found: Cells, lines: Sequence[Line], task: Task) -> list[Any]:
    names = {line.name for line in lines}
    return [cell for cell in found.values() if cell["line"] in names and cell["task"] == task]


def _start(cells: list[Any]) -> str:
    if not cells:
        return f"{UNKNOWN} | | | "
    loss, accuracy = cells[0]["points"][0]["report"]
    return f"{loss:.3f} | {loss:.3f} | {accuracy:.3f} | 0"


def _end(cells: list[Any]) -> str:
    if not cells:
        return f"{UNKNOWN} | | | "
    half = [cell["points"][1]["report"][0] for cell in cells]
    last = [cell["points"][-1]["report"] for cell in cells]
    failed = "".join(f", {cell['ended']}" for cell in cells if cell["ended"] != "done")
    drifts = [cell["drift"] for cell in cells if cell["drift"] is not None]
    loss, accuracy = _told([one[0] for one in last]), _told([one[1] for one in last])
    return f"{_told(half)} | {loss}{failed} | {accuracy} | {_told(drifts) if drifts else UNKNOWN}"


def _told(values: Sequence[float]) -> str:
    """One seed's figure, or the mean of more with their deviation."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
