"""`python -m bench.study.scales [--threads N] [--out FILE]`: how much of a probe's noise A should have, by the rate.

MeZO's population of 16 on the demo's model and tasks, A's noise that of B times `a_factor`, at three rates. It
scales both A's probe and A's move: what A learns goes by its square, its random walk by the factor itself. Losses are
of held-out rows that nothing was chosen on.
"""

from typing import Final

from bench.study import small
from bench.study.grid import CLIP, POPULATION, SMOLLM2, B
from bench.study.lines import Line

FACTORS: Final = (0.0, 0.1, 0.3, 1.0)
RATES: Final = (0.05, 0.15, 0.45)
SHAPE: Final = {"schedule": "linear", "targets": SMOLLM2["targets"], "batch_size": 4, "repeat": 4}


def lines() -> list[Line]:
    """One a scale and rate."""
    return [_line(factor, rate) for factor in FACTORS for rate in RATES]


def _line(factor: float, rate: float) -> Line:
    fields = {**SHAPE, **POPULATION, **B, **CLIP, "a_factor": factor, "learning_rate": rate}
    return Line(f"A {factor:g}, rate {rate:g}", "scales", "mezo", fields, (12, 24), budget=1e9)


def table(found: small.Cells) -> str:
    """What the file has, a row a line, both tasks beside each other."""
    return small.ends(found, {"bare base": lines()})


if __name__ == "__main__":
    small.main("scales", __doc__, lines(), small.DEMO, table)
