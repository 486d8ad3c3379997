"""`make study`: methods side by side on the packaged model, each at its best of a stated grid.

Runs what the JSON has not yet, cell by cell, then prints the tables. `--tables` only prints them, and writes
docs/methods/study.md; `--presets` writes db/contract/evidence.py.
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bench.study import grid, lines, presets, store, tables

PAGE = Path("docs/methods/study.md")
PRESETS = Path("db/contract/evidence.py")


def main() -> None:
    """Parses, runs what is asked for, prints."""
    arguments = _parser().parse_args()
    if not (arguments.tables or arguments.presets or arguments.list):
        from worker.environment import prepare

        prepare(arguments.threads, "bench.study")
        _run(arguments)
    study = store.load(arguments.out)
    if arguments.list:
        for cell in grid.cells(()):
            print(f"{'measured' if cell.key in study.cells else 'not measured':<14}{cell.key}")
        return
    print(tables.page(study))
    if arguments.tables:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(tables.page(study), encoding="utf-8")
    if arguments.presets:
        PRESETS.write_text(presets.source(study), encoding="utf-8")


def _run(arguments: argparse.Namespace) -> None:
    from bench.report.measure import machine
    from bench.study.train import opened

    study = store.load(arguments.out)
    names = arguments.lines or (list(grid.QUICK) if arguments.quick else [])
    seeds = arguments.seeds or (lines.SEEDS[:1] if arguments.quick else lines.SEEDS)
    wanted = left(study, grid.cells(names, arguments.tasks, seeds), again=arguments.again)
    if not wanted:
        return
    number = store.machine_number(study, {**machine(), "threads": arguments.threads or None})
    bench, begun = opened(arguments.home, number), time.monotonic()
    for cell in wanted:
        measured = bench.run(cell, lambda line: print(f"{time.monotonic() - begun:6.0f} s  {line}", flush=True))
        with store.held(arguments.out) as study:  # what another process has measured meanwhile stays
            number = store.machine_number(study, {**machine(), "threads": arguments.threads or None})
            study.cells[cell.key] = replace(measured, machine=number)
    bench.close()


def left(study: store.Study, cells: Iterable[lines.Cell], *, again: bool = False) -> list[lines.Cell]:
    """Of these cells the ones that the study has not; all of them where they are wanted `again`."""
    return [cell for cell in cells if again or cell.key not in study.cells]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make study", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two lines and first-order, one seed: ten minutes")
    parser.add_argument("--lines", nargs="+", default=(), metavar="LINE", help="only these: see --list")
    parser.add_argument(
        "--tasks", nargs="+", choices=[task for own in lines.TASKS.values() for task in own], default=()
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=())
    parser.add_argument("--again", action="store_true", help="also cells that the JSON has")
    parser.add_argument("--threads", type=int, default=0, help="of the engine; 0: as many as there are")
    parser.add_argument("--list", action="store_true", help="all cells, and which are measured")
    parser.add_argument("--tables", action="store_true", help="print the tables and write the page, run nothing")
    parser.add_argument("--presets", action="store_true", help="write the presets' evidence, run nothing")
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--out", type=Path, default=store.COMMITTED)
    return parser


if __name__ == "__main__":
    main()
