"""KerZOO: radii drawn anew for each direction, and a kernel that cancels the cubic's bias. Knows no parameter.

Mi et al., arXiv 2505.18886: probes theta +- eps r_i z_i with r_i ~ U(-1, 1), g = mean_i c_i K(r_i) z_i with
c_i = (L+_i - L-_i) / (2 eps) and K(r) = 15/4 r (5 - 7 r^2). E r K(r) = 1 keeps the gradient, E r^3 K(r) = 0 drops the
third-order term, which is a two-point estimate's bias of order eps^2; what is left is of order eps^4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.zo import noise
from worker.zo.estimators import Estimator
from worker.zo.noise import Place, Stream


def kernel(r: float) -> float:
    """K(r), float64."""
    return 3.75 * r * (5 - 7 * r * r)


@dataclass(frozen=True)
class Drawn:
    """The weights of a step whose radii, in units of `eps`, are these."""

    eps: float
    radii: tuple[float, ...]

    @property
    def probes(self) -> tuple[tuple[int, float], ...]:
        each = enumerate(self.radii)
        return tuple((i, radius) for i, r in each for radius in (self.eps * r, -self.eps * r))

    def slopes(self, losses: Sequence[float]) -> tuple[float, ...]:
        apart = Estimator("two_point", self.eps, len(self.radii)).slopes(losses)
        return tuple(c * kernel(r) for c, r in zip(apart, self.radii, strict=True))


@dataclass(frozen=True)
class Kernel:
    """Two-point probes whose radii are noise of (seed, step, query): odd multiples of 2^-24, so never 0."""

    eps: float
    queries: int
    seed: int

    @property
    def width(self) -> int:
        return 2 * self.queries

    def at(self, step: int) -> Drawn:
        places = [Place(self.seed, Stream.RADIUS, step, query) for query in range(self.queries)]
        return Drawn(self.eps, tuple(float(noise.uniform(place, 1, 1.0)[0]) for place in places))
