"""`make study`: methods side by side on the packaged model, each at its best of a stated grid.

Runs what the JSON has not yet, cell by cell, saying each, then prints the tables; stopped, it goes on where it was.
`--quick` keeps a JSON of its own, of this machine. `--tables` only prints them, and writes docs/methods/study.md and
README.md's table; `--presets` writes db/contract/evidence.py.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.study import grid, lines, presets, store, tables, taught

PAGE = Path("docs/methods/study.md")
PRESETS = Path("db/contract/evidence.py")
README = Path("README.md")


def main() -> None:
    """Parses, runs what is asked for, prints."""
    arguments = _parser().parse_args()
    arguments.out = arguments.out or (arguments.home / "study.json" if arguments.quick else store.COMMITTED)
    if not (arguments.tables or arguments.presets or arguments.list):
        from worker.environment import prepare

        prepare(arguments.threads, "bench.study")
        _run(arguments)
    study = store.load(arguments.out)
    if arguments.list:
        for cell in grid.cells(()):
            print(f"{'measured' if cell.key in study.cells else 'not measured':<14}{cell.key}")
        return
    print(tables.page(study, whole=not arguments.quick))
    if arguments.tables:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(tables.page(study), encoding="utf-8")
        README.write_text(taught.put(README.read_text(encoding="utf-8"), study), encoding="utf-8")
    if arguments.presets:
        PRESETS.write_text(presets.source(study), encoding="utf-8")


def _run(arguments: argparse.Namespace) -> None:
    from bench.report.measure import machine
    from bench.study.train import opened

    study, here = store.load(arguments.out), {**machine(), "threads": arguments.threads or None}
    names = arguments.lines or (list(grid.QUICK) if arguments.quick else [])
    seeds = arguments.seeds or (lines.SEEDS[:1] if arguments.quick else lines.SEEDS)
    cells = list(grid.cells(names, arguments.tasks, seeds))
    # The committed study goes on wherever it is; figures of one's own are of one's own machine.
    wanted = left(study, cells, again=arguments.again, machine=here if arguments.quick else None)
    _say(f"{len(cells)} cells, {len(cells) - len(wanted)} of them known; they go to {arguments.out}")
    if not wanted:
        return
    begun = time.monotonic()
    _say("opening the model on the engine")
    bench = opened(arguments.home, store.machine_number(study, here))
    for number, cell in enumerate(wanted, start=1):
        if not left(store.load(arguments.out), [cell], again=arguments.again):
            continue  # another process has measured it meanwhile
        _say(f"cell {number} of {len(wanted)}: {cell.key}, {time.monotonic() - begun:.0f} s so far")
        measured = bench.run(cell, lambda line: _say(f"  {line}"))
        with store.held(arguments.out) as study:  # what another process has measured meanwhile stays
            study.cells[cell.key] = replace(measured, machine=store.machine_number(study, here))
    bench.close()


def _say(line: str) -> None:
    """Progress: the tables alone go to standard output."""
    print(line, file=sys.stderr, flush=True)


def left(
    study: store.Study, cells: Iterable[lines.Cell], *, again: bool = False, machine: dict[str, Any] | None = None
) -> list[lines.Cell]:
    """Of these cells those that the study has not, as their lines are now and, where one is given, of this `machine`;
    all of them where they are wanted `again`."""

    def known(cell: lines.Cell) -> bool:
        found = study.cells.get(cell.key)
        if found is None or not grid.same(found, cell.line):
            return False
        return machine is None or store.alike(study.machines[found.machine], machine)

    return [cell for cell in cells if again or not known(cell)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make study", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three lines, one seed, on this machine: ten minutes")
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
    parser.add_argument("--out", type=Path, help=f"default {store.COMMITTED.name}; with --quick, study.json in home")
    return parser


if __name__ == "__main__":
    main()
