"""`python -m bench.report.guard FRESH [COMMITTED]`: fails where a fresh run's ratio is a quarter worse than before.

Ratios only, each of two things timed in turn in one run: seconds differ from machine to machine. Workloads that the
fresh run left out are not looked at. Knows JSON, nothing of what was measured.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.report.measure import RESULTS

COMMITTED = RESULTS / "bench.json"
QUARTER: Final = 1.25

# Where a ratio lies ("*": every key), and whether more of it is better. Onward is the last word of each.
RATIOS: Final[tuple[tuple[tuple[str, ...], bool], ...]] = (
    (("compare", "*", "contenders", "*", "times onward's step", "median"), True),
    (("compare", "*", "contenders", "*", "times onward's processor time", "median"), True),
    (("compare", "*", "contenders", "onward", "fraction of the floor", "median"), True),
    (("memory", "*", "*", "times onward's"), True),
    (("service", "service over bare", "median"), False),
    (("service", "service over bare, processor time", "median"), False),
)


@dataclass(frozen=True)
class Verdict:
    """One ratio in both runs. `worse` is by what factor it worsened, below 1 where it improved."""

    name: str
    committed: float
    fresh: float
    worse: float

    @property
    def failed(self) -> bool:
        return not self.worse < QUARTER  # NaN fails

    def say(self) -> str:
        return f"{self.name}: {self.committed:.3g} -> {self.fresh:.3g} ({'WORSE' if self.failed else 'ok'})"


def compared(committed: dict[str, Any], fresh: dict[str, Any]) -> list[Verdict]:
    """Every ratio that both runs have."""
    verdicts = []
    for path, more_is_better in RATIOS:
        before = dict(_found(committed, path))
        for name, now in _found(fresh, path):
            if name in before:
                was = before[name]
                worse = was / now if more_is_better else now / was
                verdicts.append(Verdict(" / ".join(name), was, now, worse))
    return verdicts


def _found(figures: Any, path: tuple[str, ...], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """(full path, number) of everything that `path` names."""
    if not path:
        if isinstance(figures, int | float):
            yield at, float(figures)
        return
    if isinstance(figures, dict):
        for key in figures if path[0] == "*" else [path[0]] if path[0] in figures else []:
            yield from _found(figures[key], path[1:], (*at, key))


def main(words: Sequence[str] | None = None) -> int:
    """1 where a ratio worsened by a quarter, 2 where the runs have no ratio in common."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fresh", type=Path)
    parser.add_argument("committed", type=Path, nargs="?", default=COMMITTED)
    asked = parser.parse_args(words)
    verdicts = compared(*(json.loads(path.read_text()) for path in (asked.committed, asked.fresh)))
    for verdict in sorted(verdicts, key=lambda v: v.failed):
        print(verdict.say())
    if not verdicts:
        print("the two runs have no ratio in common", file=sys.stderr)
        return 2
    return int(any(v.failed for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
