"""TeZO: probes of W in r fixed rank-one matrices, weighed anew each step. Knows an adapter's modules, no loss.

Sun et al., arXiv 2501.19057: dW = sum_s tau_s u_s v_s^T with u_s [outputs] and v_s [inputs] of unit variance drawn once
and tau [r] fresh each step; probes W +- eps dW, W <- W - lr c dW. No 1/r, neither in probe nor update, as in LOZO.
Momentum and Adam keep their moments of the r numbers c tau of a module, not of W.

In an adapter of rank r and scaling s = alpha / r, A holds the v_s^T and is never written, and B is U diag(t) / s, where
t sums up the moves: s B A is the sum of what W was moved by. The paper's Adam divides every entry of W by a second
moment sum_s (v_s) u_s^2 (v_s^2)^T of its own; that quotient has full rank and no adapter holds it, so here each of the
r numbers is divided by its own.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worker.types import Layout, Params
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Buffers, Optimizer


@dataclass(frozen=True)
class State:
    """What TeZO remembers: see `worker.zo.method.State`. `buffers` are the optimizer's vectors, r numbers a module."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    buffers: Buffers = ()


@dataclass(frozen=True)
class FactorSpace:
    """B's columns, each along its own u_s alone."""

    layout: Layout
    seed: int

    def start(self) -> tuple[Params, State]:
        params = np.zeros(self.layout.size, dtype=np.float32)
        for i, (_, a, _) in enumerate(self.layout.pairs(params)):
            a[:] = noise.normal(Place(self.seed, Stream.FIXED_RIGHT, 0, tensor=2 * i), a.size).reshape(a.shape)
        return params, State()

    def enter(self, params: Params, state: State) -> tuple[Params, State]:
        return params, state

    @property
    def count(self) -> int:
        """Numbers tau of all modules."""
        return len(self.layout.modules) * self.layout.rank

    def weights(self, step: int, query: int) -> Params:
        """tau of every module in order, float32 [count]."""
        return noise.normal(Place(self.seed, Stream.TEMPORAL, step, query), self.count)

    def direction(self, params: Params, state: State, query: int) -> Params:  # noqa: ARG002
        return self.spanned(self.weights(state.step, query))

    def spanned(self, weights: Params) -> Params:
        """U diag(weights) / s in B, 0 in A, for the weights of every module in order."""
        z = np.zeros(self.layout.size, dtype=np.float32)
        each = weights.reshape(len(self.layout.modules), self.layout.rank) * np.float32(1 / self.layout.scaling)
        for i, (_, _, b) in enumerate(self.layout.pairs(z)):
            b[:] = self._left(i) * each[i]
        return z

    def _left(self, module: int) -> NDArray[np.float32]:
        """U of a module, float32 [outputs, r]."""
        shape = self.layout.shapes[2 * module + 1]
        place = Place(self.seed, Stream.FIXED_LEFT, 0, tensor=2 * module + 1)
        return noise.normal(place, shape[0] * shape[1]).reshape(shape)

    def decay(self, params: Params, factor: float) -> Params:
        """B alone shrinks, so that V stays what was drawn."""
        decayed = params.copy()
        for _, _, b in self.layout.pairs(decayed):
            b *= np.float32(factor)
        return decayed


@dataclass(frozen=True)
class Spanned:
    """An optimizer of the r numbers a module, its direction put into the adapter's entries."""

    space: FactorSpace
    inner: Optimizer

    @property
    def buffers(self) -> int:
        return self.inner.buffers

    def apply(self, gradient: Params, buffers: Buffers, step: int) -> tuple[Params, Buffers]:
        direction, buffers = self.inner.apply(gradient, buffers, step)
        return self.space.spanned(direction), buffers


@dataclass(frozen=True)
class Temporal(Descent[State]):
    """A descent whose optimizer, a Spanned one, sees r numbers a module in place of the adapter's entries."""

    space: FactorSpace

    def init(self) -> tuple[Params, State]:
        params, state = self.space.start()
        zeros = tuple(np.zeros(self.space.count, dtype=np.float32) for _ in range(self.optimizer.buffers))
        return params, replace(state, buffers=zeros)

    def _gradient(self, params: Params, state: State, slopes: tuple[float, ...]) -> Params:  # noqa: ARG002
        """mean_i c_i tau_i, float32 [modules * r], added up in query order."""
        total = np.zeros(self.space.count, dtype=np.float32)
        for query, slope in enumerate(slopes):
            total += self.space.weights(state.step, query) * np.float32(slope / len(slopes))
        return total
