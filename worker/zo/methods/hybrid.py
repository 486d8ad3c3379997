"""Hybrid: backpropagation through the top layers, zeroth order below them. Knows the noise and vectors, no loss.

ZO-Bench's hybrid of zeroth and first order (Zhang et al., arXiv 2402.11592, section 5): the backward pass stops at the
lowest of the top layers, so that no activation below is kept. The top layers' adapters move by AdamW, those below by
n-SPSA (arXiv 2305.17333) with the top as it is. Both estimates are of the step's rows at the same params.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from worker.types import GRADIENT, Layout, Params
from worker.zo import noise
from worker.zo.estimators import Estimator, clipped
from worker.zo.method import Measured, Probe, finite, left_out
from worker.zo.methods.first_order import State, bounded
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.moving import Rule, counted, gradient_of, kept
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.shapes import EVEN, Shape


@dataclass(frozen=True)
class Hybrid:
    """Tensors from number `since` of the layout on are the top's. `top` moves them (its moments are as long as they),
    `below` what is before. `clip` bounds the norm of the top's gradient, `zo_clip` each projected gradient |c|.

    The first probe is the params themselves with the top's gradient; its loss is the centre of one-sided probes.
    """

    layout: Layout
    seed: int
    since: int
    top: Rule
    below: Rule
    estimator: Estimator
    clip: float | None = None
    zo_clip: float | None = None
    shape: Shape = EVEN

    def __post_init__(self) -> None:
        if not isinstance(self.below.optimizer, Sgd):
            raise TypeError("below the top layers moves plain SGD")

    @property
    def most(self) -> int:
        return GRADIENT + len(self._beside)

    @property
    def numbers(self) -> int:
        return 1

    @property
    def replays(self) -> bool:
        return False

    def init(self) -> tuple[Params, State]:
        params, _ = AdapterSpace(self.layout, self.seed).start()
        return params, State(buffers=self.top.buffers(params[self._cut :]))

    def halved(self, times: int) -> "Hybrid":
        return replace(self, top=self.top.halved(times), below=self.below.halved(times))

    def ask(self, params: Params, state: State, heard: Sequence[Measured]) -> list[Probe]:
        if heard:
            return []
        probes = [Probe(params, gradient=True, since=self.since)]
        for query, radius in self._beside:
            moved = params.copy()
            moved[: self._cut] += self.direction(params, state, query) * np.float32(radius)
            probes.append(Probe(moved))
        return probes

    def tell(self, params: Params, state: State, heard: Sequence[Measured]) -> tuple[Params, State]:
        counted(heard, 1 + len(self._beside))
        gradient = gradient_of(heard[0], params)[self._cut :]
        losses = [measured.loss for measured in heard]
        slopes = self.estimator.slopes(losses if self.estimator.kind == "one_sided" else losses[1:])
        if not (all(map(math.isfinite, (*losses, *slopes))) and finite(gradient)):
            return params, left_out(state)
        top, buffers = self.top.moved(params[self._cut :], state, bounded(gradient, self.clip))
        estimate = self._estimate(params, state, clipped(slopes, self.zo_clip))
        below, _ = self.below.moved(params[: self._cut], state, estimate)
        return kept(params, state, np.concatenate((below, top)), buffers)

    def direction(self, params: Params, state: State, query: int) -> Params:
        """The shaped direction of a query below the top, float32."""
        z = np.zeros_like(params)
        z[: self._cut] = noise.normal(Place(self.seed, Stream.BELOW, state.step, query), self._cut)
        return self.shape.shaped(z, params, state.step)[: self._cut]

    def _estimate(self, params: Params, state: State, slopes: tuple[float, ...]) -> Params:
        total = np.zeros(self._cut, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for query, slope in enumerate(slopes):
                total += self.direction(params, state, query) * np.float32(slope / len(slopes))
        return total

    @property
    def _cut(self) -> int:
        """The first of the top's parameters."""
        return self.layout.offsets[self.since]

    @property
    def _beside(self) -> tuple[tuple[int, float], ...]:
        """Direction and radius of the probes beside the first."""
        return tuple((query, radius) for query, radius in self.estimator.probes if radius)
