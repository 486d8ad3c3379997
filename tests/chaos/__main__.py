"""`python -m tests.chaos`: a fleet, a seeded storm, the fixed cases, a report. Exit status 1 where anything broke."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from bench.report.measure import machine
from tests import conftest  # its patience with servers is ours too
from tests.chaos import report
from tests.chaos.cases import CASES, Held
from tests.chaos.run import fixed, stormed
from tests.chaos.soak import soaked

__all__ = ("conftest",)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--tenants", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3600.0, help="after so long no fault is injected any more")
    parser.add_argument("--cases", type=int, nargs="*", help="these fixed cases alone, no storm; without a number: all")
    parser.add_argument("--json", type=Path, help="where to write the report, for example bench/results/chaos.json")
    parser.add_argument("--logs", type=Path, default=Path(".onward/chaos"), help="where the logs are kept")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="an even load instead, and memory watched")
    asked = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if asked.soak:
        return soak(asked, console)
    verdict = None
    if asked.cases is None:
        sizes = {"tenants": asked.tenants, "jobs": asked.jobs, "faults": asked.faults}
        verdict = stormed(asked.seed, **sizes, cap=asked.seconds, logs=asked.logs / "storm")

    def said(case: Held) -> None:
        console.print(f"case {case.number}: {case.verdict} ({case.seconds:.0f} s)")

    cases = fixed(asked.cases or [case.number for case in CASES], said, asked.logs / "cases")
    found = report.gathered(asked.seed, verdict, cases, {})
    report.printed(found, console)
    if asked.json is not None:
        report.written(found, asked.json)
    if report.broken(found):
        console.print(f"the logs are in {asked.logs}")
        return 1
    return 0


def soak(asked: argparse.Namespace, console: Console) -> int:
    found = {"seed": asked.seed, "machine": machine(), "soak": soaked(asked.soak, asked.logs / "soak", asked.seed)}
    console.print_json(json.dumps(found))
    if asked.json is not None:
        report.written(found, asked.json)
    return 1 if found["soak"]["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
