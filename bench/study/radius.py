"""`python -m bench.study.radius [--threads N] [--out FILE]`: how small a probe may be, in float32 and in bfloat16.

MeZO's population of 16 at rate 0.15 on the demo's model and tasks, with probes of five radii, on an engine of either
dtype; that engine evaluates too. A job is refused a radius below `db.contract.precision.LEAST_EPS`: here it is run all
the same. `bench.studies.noise` has the signal and the rounding of one slope. Losses are of held-out rows that nothing
was chosen on.
"""

from typing import Final

from bench.study import small
from bench.study.grid import CLIP, POPULATION, SMOLLM2, B
from bench.study.lines import Line

RADII: Final = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
DTYPES: Final = ("float32", "bfloat16")
SHAPE: Final = {
    "schedule": "linear", "targets": SMOLLM2["targets"], "batch_size": 4, "repeat": 4, "learning_rate": 0.15,
}  # fmt: skip


def lines() -> list[Line]:
    """One a dtype and radius."""
    return [one for own in groups().values() for one in own]


def groups() -> dict[str, list[Line]]:
    """Those of a dtype, by how the bare base is called in it."""
    return {f"bare base, {dtype}": [_line(dtype, eps) for eps in RADII] for dtype in DTYPES}


def _line(dtype: str, eps: float) -> Line:
    fields = {**SHAPE, **POPULATION, **B, **CLIP, "eps": eps}
    return Line(f"{dtype}, eps {eps:g}", "radius", "mezo", fields, (12, 24), budget=1e9, dtype=dtype)


def table(found: small.Cells) -> str:
    """What the file has, a row a line, both tasks beside each other."""
    return small.ends(found, groups())


if __name__ == "__main__":
    small.main("radius", __doc__, lines(), small.DEMO, table)
