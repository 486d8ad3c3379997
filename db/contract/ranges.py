"""Within which ranges the numbers of a spec may be, so that whatever an engine multiplies stays finite in its dtype.

Asked at admission only: a row that an earlier release accepted is read as it is. Knows no request and no limit that an
operator sets. What of it depends on losses (a rate times a slope without `clip`) is the run's to notice.
"""

from collections.abc import Iterator
from typing import Final

from db.contract.refusal import Unfit
from db.contract.spec import JobSpec

Range = tuple[float, float]  # both ends included

NOISE: Final = 8.0  # no entry of a direction is larger (worker/zo/noise.py), and none but 0 smaller than 1/4
# alpha / rank. With directions of at most NOISE and eps of at most 1: a product scaling x A x B of probes stays below
# 65,504 (float16), and so does U / scaling, which LOZO writes into B.
SCALING: Final[Range] = (2.0**-9, 2.0**9)
STEPS: Final[Range] = (1, 1_000_000)  # of a period counted in steps: as many as a job can have
MOST_DECAY: Final = 1.0  # learning_rate x weight_decay: the factor 1 - that of each step shrinks and never flips


def unfit(spec: JobSpec) -> Iterator[Unfit]:
    """Every number that is outside of its range, the ranges said in the reason."""
    for name, value, limits in _numbers(spec):
        if not limits[0] <= value <= limits[1]:
            yield Unfit(name, f"{name} is {value:g}: from {limits[0]:g} to {limits[1]:g} can be computed with")
    scaling = spec.adapter.alpha / spec.adapter.rank
    if not SCALING[0] <= scaling <= SCALING[1]:
        between = " to ".join(f"{end * spec.adapter.rank:g}" for end in SCALING)
        rule = f"alpha / rank may be {SCALING[0]:g} to {SCALING[1]:g}"
        yield Unfit("alpha", f"{rule}, so alpha {between} with rank {spec.adapter.rank}; it is {spec.adapter.alpha:g}")
    rate, decay = spec.method.learning_rate, spec.method.weight_decay
    if rate * decay > MOST_DECAY:
        most = f"with learning_rate {rate:g} at most {MOST_DECAY / rate:g}"
        yield Unfit("weight_decay", f"learning_rate x weight_decay may be at most {MOST_DECAY:g}, so {most}")


def _numbers(spec: JobSpec) -> Iterator[tuple[str, float, Range]]:
    """(name, value, range) of the numbers that have a range of their own beside the schema's."""
    for name, limits in spec.method.ranges.items():
        value = getattr(spec.method, name)
        if value is not None:
            yield name, value, limits
    yield "eval_every", spec.eval_every, STEPS
