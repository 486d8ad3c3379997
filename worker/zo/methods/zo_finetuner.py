"""ZO Fine-tuner: how far each tensor is probed and moved is learned. Knows the noise and networks, no profile.

arXiv 2510.00419: sigma_b = |MLP_b(mean theta_b, var theta_b, L+, L-, sigma_b)| of tensor b, with the losses and the
sigma of the step before, probes theta +- eps N sigma_b z_b, theta <- theta - lr c N sigma_b z_b, and N such that
sum n_b (N sigma_b)^2 = sum n_b. Here a network reads the sigma before as it was normalised, and until losses were heard
every sigma is 1. The move is along what was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.types import Layout, Params
from worker.zo.descent import Descent
from worker.zo.learned import Networks, normalised
from worker.zo.linalg import F64, tree_sum
from worker.zo.method import Measured
from worker.zo.methods import mezo
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.optimizers import Buffers


@dataclass(frozen=True)
class State:
    """What ZO Fine-tuner remembers: see `worker.zo.method.State` and `worker.zo.descent.Buffered`."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    entered: int = -1  # the step that `sigma` is of
    sigma: tuple[F64, ...] = ()  # normalised, float64 [T]; () before the first step
    losses: tuple[float, ...] = ()  # L+ and L- of the last step that was taken, means over its queries
    buffers: Buffers = ()


class Sizes(Protocol):
    """Where the sigmas come from: not normalised, float64 [T]."""

    def __call__(self, layout: Layout, params: Params, before: F64, losses: tuple[float, ...]) -> F64: ...


@dataclass(frozen=True)
class Learned:
    """By the networks of the tensors; all 1 where no losses were heard."""

    networks: Networks

    def __call__(self, layout: Layout, params: Params, before: F64, losses: tuple[float, ...]) -> F64:
        if not losses:
            return np.ones_like(before)
        told = np.broadcast_to(np.array(losses), (len(before), 2))
        return self.networks(np.concatenate((moments(layout, params), told, before[:, None]), 1))


@dataclass(frozen=True)
class Fixed:
    """The same at every step, float32 [T]."""

    factors: NDArray[np.float32]

    def __call__(self, layout: Layout, params: Params, before: F64, losses: tuple[float, ...]) -> F64:  # noqa: ARG002
        return self.factors.astype(np.float64)


@dataclass(frozen=True)
class SizedSpace:
    """All P parameters, the noise of each tensor times its sigma."""

    adapter: AdapterSpace
    sizes: Sizes

    def start(self) -> tuple[Params, State]:
        return self.adapter.start()[0], State()

    def enter(self, params: Params, state: State) -> tuple[Params, State]:
        """Takes the sigmas of the step."""
        if state.entered == state.step:
            return params, state
        layout = self.adapter.layout
        before = state.sigma[0] if state.sigma else np.ones(len(layout.shapes))
        entries = np.diff(layout.offsets).astype(np.float64)
        sigma = normalised(self.sizes(layout, params, before, state.losses), entries)
        return params, replace(state, entered=state.step, sigma=(sigma,))

    def direction(self, params: Params, state: State, query: int) -> Params:
        """z of MeZO times the sigma of its tensor."""
        z = self.adapter.direction(params, mezo.State(step=state.step), query)
        for i, sigma in enumerate(state.sigma[0]):
            self.adapter.layout.tensor(z, i)[:] *= np.float32(sigma)
        return z

    def decay(self, params: Params, factor: float) -> Params:
        return self.adapter.decay(params, factor)


@dataclass(frozen=True)
class ZoFinetuner(Descent[State]):
    """A two-point descent that keeps the losses of each step for the next one's sigmas."""

    def tell(self, params: Params, state: State, heard: Sequence[Measured]) -> tuple[Params, State]:
        moved, after = super().tell(params, state, heard)
        if after.nonfinite:
            return moved, after
        losses = [measured.loss for measured in heard]
        return moved, replace(after, losses=(_mean(losses[::2]), _mean(losses[1::2])))


def moments(layout: Layout, params: Params) -> F64:
    """The mean and the variance of each tensor's entries, float64 [T, 2]."""
    found = np.empty((len(layout.shapes), 2))
    for i in range(len(found)):
        x = layout.tensor(params, i).ravel().astype(np.float64)
        mean = tree_sum(x, 0) / len(x)
        found[i] = mean, tree_sum((x - mean) * (x - mean), 0) / len(x)
    return found


def _mean(values: Sequence[float]) -> float:
    total = 0.0
    for value in values:
        total += value / len(values)
    return total
