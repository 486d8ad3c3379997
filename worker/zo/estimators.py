"""Losses to gradient estimate: where to probe, and what each direction weighs. Knows no direction and no parameter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


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

    def slopes(self, losses: Sequence[float]) -> tuple[float, ...]:
        """The projected gradients c_i [queries] of losses [width], float64 of scalar operations only."""
        values = [float(x) for x in losses]
        if len(values) != self.width:
            raise ValueError(f"{len(values)} losses for {self.width} probes")
        if self.kind == "two_point":
            return tuple((up - down) / (2 * self.eps) for up, down in zip(values[::2], values[1::2], strict=True))
        if self.kind == "one_sided":
            return tuple((up - values[0]) / self.eps for up in values[1:])
        total = 0.0
        for value in values:
            total += value
        mean, others = total / self.queries, self.queries - 1
        return tuple((value - mean) / self.eps * (self.queries / others) for value in values)


def clipped(slopes: tuple[float, ...], bound: float | None) -> tuple[float, ...]:
    """Each projected gradient limited to [-bound, bound]; unchanged without a bound."""
    return slopes if bound is None else tuple(min(max(c, -bound), bound) for c in slopes)
