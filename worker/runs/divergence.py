"""Whether a held-out loss has left its start by more than its own noise, and what a run does then. Pure.

docs/divergence.md says why these numbers.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from db.contract.history import Restart
from db.contract.spec import JobSpec

Rows = Sequence[tuple[float, int]]  # over rows: the sum of a row's terms, nats, and how many they are

# The one-sided quantile of Student's t at 1e-4, for at least so many degrees of freedom.
CRITICAL: Final = (
    (5, 9.678), (6, 8.025), (7, 7.063), (8, 6.442), (9, 6.010), (10, 5.694), (12, 5.263), (15, 4.880), (20, 4.539),
    (30, 4.234), (60, 3.962), (120, 3.837), (1000, 3.733),
)  # fmt: skip
OWN: Final = 3.0  # standard errors of the loss at the start
FEWEST: Final = CRITICAL[0][0] + 1  # rows whose spread says anything


@dataclass(frozen=True)
class Rise:
    """How much a mean loss is above its start, nats; `error` is the standard error of that, None where rows are too few
    to have one; more than `limit` cannot be noise."""

    nats: float
    error: float | None
    limit: float

    @property
    def diverged(self) -> bool:
        """Not finite, or more than noise."""
        return not self.nats <= self.limit


Reason = Literal["diverged", "patience"]


class Heard(Protocol):
    """An evaluation as it was recorded."""

    @property
    def step(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def diverged(self) -> bool: ...
    @property
    def terms(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class Watch:
    """What a run's evaluations have come to. `start` are the sums of its rows' terms at step 0, empty where they were
    not finite or are not known; `since` counts evaluations since the best one, or since a restart; `diverged` says what
    the last one was; `stopped` why the run has ended before its last step."""

    start: tuple[float, ...] = ()
    since: int = 0
    diverged: bool = False
    restarts: tuple[Restart, ...] = ()
    stopped: Reason | None = None

    def heard(self, *, better: bool, diverged: bool, start: tuple[float, ...] = ()) -> "Watch":
        """After one more evaluation; `start` is given with the first."""
        return replace(self, start=start or self.start, since=0 if better else self.since + 1, diverged=diverged)

    def went_back(self, restart: Restart) -> "Watch":
        """After one more restart."""
        return replace(self, since=0, diverged=False, restarts=(*self.restarts, restart))

    def may_restart(self, spec: JobSpec) -> bool:
        """Whether the run goes on from its best step where it has diverged."""
        return spec.on_divergence == "restart" and len(self.restarts) < spec.max_restarts

    def reason(self, spec: JobSpec) -> Reason | None:
        """Why the run is not to go on as it is."""
        if self.diverged and spec.on_divergence != "continue":
            return "diverged"
        return "patience" if spec.patience is not None and self.since >= spec.patience else None


def recalled(spec: JobSpec, heard: Iterable[Heard], restarts: Sequence[Restart], step: int) -> Watch:
    """What a run after `step` steps had come to with what is committed of it: its evaluations and restarts, in order.
    What was said of an evaluation when it was made counts."""
    watch, best, last = Watch(), math.inf, -1
    for one in heard:
        for restart in [r for r in restarts[len(watch.restarts) :] if r.at <= one.step]:
            watch = watch.went_back(restart)
        better = one.loss < best
        best, last = (one.loss, one.step) if better else (best, one.step)
        watch = watch.heard(better=better, diverged=one.diverged, start=one.terms)
    for restart in restarts[len(watch.restarts) :]:
        watch = watch.went_back(restart)
    over = last < step < spec.steps and math.isfinite(best)  # what followed from the last was decided with its step
    return replace(watch, stopped=watch.reason(spec) if over else None)


def rise(start: Sequence[float], now: Rows) -> Rise:
    """From the same rows, at least one: the sums of their terms before the first step, finite, and what they are now.

    The rows are the sample and paired, so that what is hard about a row drops out: the error is that of the mean
    difference. A rise is not noise where it is more than t standard errors (Student's t at 1e-4, one-sided, as many
    degrees of freedom as rows less one, where the differences' skewness is made up for), and more than `OWN` standard
    errors of the loss at the start: less may be there, but only pairing makes it visible. Fewer than `FEWEST` rows have
    no spread to speak of: the loss itself stands for it.
    """
    totals, counts = [total for total, _ in now], [count for _, count in now]
    nats = (math.fsum(totals) - math.fsum(start)) / sum(counts)
    if len(start) < FEWEST or not math.isfinite(nats):
        return Rise(nats, None, math.fsum(start) / sum(counts))
    differences = [after - before for after, before in zip(totals, start, strict=True)]
    error, own = standard_error(differences, counts), standard_error(start, counts)
    return Rise(nats, error, max(allowed(critical(len(start)), _skew(differences, counts)) * error, OWN * own))


def standard_error(totals: Sequence[float], counts: Sequence[int]) -> float:
    """Of sum(totals) / sum(counts) over a sample of at least two rows: Cochran, Sampling Techniques (3rd ed.), section
    2.11, the ratio of two means; where every count is 1 that of a mean."""
    n, ratio = len(totals), math.fsum(totals) / sum(counts)
    squares = math.fsum((total - ratio * count) ** 2 for total, count in zip(totals, counts, strict=True))
    return math.sqrt(squares * n / (n - 1)) / sum(counts)


def _skew(totals: Sequence[float], counts: Sequence[int]) -> float:
    """Of the residuals that `standard_error` is made of."""
    n, ratio = len(totals), math.fsum(totals) / sum(counts)
    residuals = [total - ratio * count for total, count in zip(totals, counts, strict=True)]
    spread = math.sqrt(math.fsum(x * x for x in residuals) / n)
    return math.fsum((x / spread) ** 3 for x in residuals) / n / math.sqrt(n) if spread else 0.0


def allowed(t: float, skew: float) -> float:
    """What a mean over its standard error may be where it would be `t` without `skew`, the skewness of the rows by the
    root of their number: the inverse of Hall's transformation t + a t^2 / 3 + a^2 t^3 / 27 + a / 6 (J. R. Statist.
    Soc. B 54, 1992). Where a few rows got far worse less is noise, where most got a little worse more.
    """
    if abs(skew) < 1e-9:
        return t
    return 3 / skew * (math.cbrt(1 + skew * (t - skew / 6)) - 1)


def critical(rows: int) -> float:
    """How many standard errors of a mean over `rows` rows, at least `FEWEST`, are too many."""
    return next(t for freedom, t in reversed(CRITICAL) if freedom <= rows - 1)
