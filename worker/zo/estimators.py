"""Losses to gradient estimate: where to probe, and what each direction weighs. Knows no direction and no parameter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Weighing(Protocol):
    """Where directions are probed, and what each of them weighs in the estimate for the losses found there."""

    @property
    def width(self) -> int:
        """Probes a step."""
        ...

    @property
    def probes(self) -> tuple[tuple[int, float], ...]:
        """(direction, signed radius) of each probe in order, a direction's next to each other; radius 0 is the
        centre."""
        ...

    def at(self, step: int) -> "Weighing":
        """As step number `step` has it: another one where radii are drawn anew."""
        ...

    def slopes(self, losses: Sequence[float]) -> tuple[float, ...]:
        """The weights of the directions [queries] for losses [width], float64 of scalar operations only. Raises
        ValueError for another number of losses."""
        ...


@dataclass(frozen=True)
class Estimator:
    """Simultaneous perturbation with `queries` random directions z_i and probe radius `eps`.

    two_point (n-SPSA, arXiv 2305.17333 definition 1): probes theta + eps z_i, theta - eps z_i in turn,
    c_i = (L+_i - L-_i) / (2 eps). one_sided: the centre theta first, then theta + eps z_i, c_i = (L_i - L_0) / eps.
    population: theta + eps z_i alone, c_i = (L_i - mean L) / eps * q / (q - 1): each probe against the mean of the
    others, unbiased on a linear loss. The gradient estimate is the mean over queries of c_i z_i, so a learning rate
    keeps its meaning when queries change.
    """

    kind: Literal["two_point", "one_sided", "population"]
    eps: float
    queries: int = 1

    @property
    def width(self) -> int:
        """Probes a step."""
        match self.kind:
            case "two_point":
                return 2 * self.queries
            case "one_sided":
                return self.queries + 1
            case "population":
                return self.queries

    @property
    def probes(self) -> tuple[tuple[int, float], ...]:
        """(direction, signed radius) of each probe in order; radius 0 is the centre."""
        each = range(self.queries)
        if self.kind == "two_point":
            return tuple((i, radius) for i in each for radius in (self.eps, -self.eps))
        beside = tuple((i, self.eps) for i in each)
        return beside if self.kind == "population" else ((0, 0.0), *beside)

    def at(self, step: int) -> "Estimator":  # noqa: ARG002
        return self

    def slopes(self, losses: Sequence[float]) -> tuple[float, ...]:
        """The projected gradients c_i [queries] of losses [width], float64 of scalar operations only."""
        values = _told(losses, self.width)
        if self.kind == "two_point":
            return tuple((up - down) / (2 * self.eps) for up, down in zip(values[::2], values[1::2], strict=True))
        if self.kind == "one_sided":
            return tuple((up - values[0]) / self.eps for up in values[1:])
        total = 0.0
        for value in values:
            total += value
        mean, others = total / self.queries, self.queries - 1
        return tuple((value - mean) / self.eps * (self.queries / others) for value in values)


@dataclass(frozen=True)
class Signs:
    """Two-point probes of which only the sign of each slope counts (ZO-SGD-Sign, arXiv 2402.11592): 1, -1, or 0 for
    equal losses. Losses in any unit, or through any rising function, give the same."""

    eps: float
    queries: int = 1

    @property
    def width(self) -> int:
        return 2 * self.queries

    @property
    def probes(self) -> tuple[tuple[int, float], ...]:
        return Estimator("two_point", self.eps, self.queries).probes

    def at(self, step: int) -> "Signs":  # noqa: ARG002
        return self

    def slopes(self, losses: Sequence[float]) -> tuple[float, ...]:
        values = _told(losses, self.width)
        pairs = zip(values[::2], values[1::2], strict=True)
        return tuple(float((up > down) - (up < down)) for up, down in pairs)


@dataclass(frozen=True)
class Standardised:
    """Probes theta + eps z_i, each loss weighed against the deviation of all: f_i = gain (L_i - baseline) / std L.

    The baseline is the loss at the `centre`, which is a probe of its own and the first (FZOO, arXiv 2506.09034), or the
    `mean` of L_1..L_q (a z-score: evolution strategies, arXiv 2509.24372). std L is of L_1..L_q with q - 1 (`sample`)
    or q (`population`) below the sum. A loss times a power of two gives the same bits: eps is in no weight, and there
    is no floor below the deviation. Where all L_i are equal there is nothing to tell directions apart: weights are 0.
    """

    baseline: Literal["centre", "mean"]
    eps: float
    queries: int
    deviation: Literal["sample", "population"] = "population"
    gain: float = 1.0

    @property
    def width(self) -> int:
        return self.queries + (self.baseline == "centre")

    @property
    def probes(self) -> tuple[tuple[int, float], ...]:
        kind: Literal["one_sided", "population"] = "one_sided" if self.baseline == "centre" else "population"
        return Estimator(kind, self.eps, self.queries).probes

    def at(self, step: int) -> "Standardised":  # noqa: ARG002
        return self

    def slopes(self, losses: Sequence[float]) -> tuple[float, ...]:
        values = _told(losses, self.width)
        beside = values[-self.queries :]
        deviations = _deviations(beside)
        largest = max(map(abs, deviations))
        if largest == 0:
            return (0.0,) * self.queries
        # In units of a power of two next to the largest, so that no square leaves float64.
        unit = math.ldexp(1.0, math.frexp(largest)[1] - 1)
        apart = deviations if self.baseline == "mean" else [value - values[0] for value in beside]
        total = 0.0
        for deviation in deviations:
            total += (deviation / unit) * (deviation / unit)
        std = math.sqrt(total / (self.queries - (self.deviation == "sample")))
        return tuple(self.gain * (x / unit / std) for x in apart)


def _told(losses: Sequence[float], width: int) -> list[float]:
    if len(losses) != width:
        raise ValueError(f"{len(losses)} losses for {width} probes")
    return [float(x) for x in losses]


def _deviations(values: list[float]) -> list[float]:
    """Of each from the mean of all, taken beside the first: equal values deviate by exactly 0."""
    beside = [value - values[0] for value in values]
    total = 0.0
    for value in beside:
        total += value
    mean = total / len(beside)
    return [value - mean for value in beside]


def clipped(slopes: tuple[float, ...], bound: float | None) -> tuple[float, ...]:
    """Each projected gradient limited to [-bound, bound]; unchanged without a bound."""
    return slopes if bound is None else tuple(min(max(c, -bound), bound) for c in slopes)
