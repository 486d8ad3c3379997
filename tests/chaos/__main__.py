"""`python -m tests.chaos`: a fleet, a seeded storm, the fixed cases, a report. Exit status 1 where anything broke."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from tests import conftest  # its patience with servers is ours too
from tests.chaos import report
from tests.chaos.run import stormed

__all__ = ("conftest",)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--tenants", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3600.0, help="after so long no fault is injected any more")
    parser.add_argument("--json", type=Path, help="where to write the report, for example bench/results/chaos.json")
    parser.add_argument("--logs", type=Path, default=Path(".onward/chaos"), help="where the logs are kept")
    asked = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    verdict = stormed(
        asked.seed, tenants=asked.tenants, jobs=asked.jobs, faults=asked.faults, cap=asked.seconds, logs=asked.logs
    )
    found = report.gathered(asked.seed, verdict, [], {})
    report.printed(found, console)
    if asked.json is not None:
        report.written(found, asked.json)
    if report.broken(found):
        console.print(f"the logs are in {asked.logs}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
