"""EGGROLL with members of their own, folded back into the adapter at every step. Knows losses, no engine.

Arxiv 2511.16652: members W + eps E_i, E_i = U_i V_i^T / sqrt r with U_i [outputs, r] and V_i [inputs, r] fresh each
step; W <- W - lr sqrt N mean_i f_i E_i, f_i the z-scored losses. The move has rank up to N r, and an adapter's rank R
is fixed: the first R - r rows of A and columns of B hold what was learned, the last r are where a probe puts its
member, and are 0 between steps. So a probe is an adapter of the job's rank, and exactly the member. After the move the
sum is cut back to its best approximation of rank R - r (Eckart-Young), and what that loses is in the state.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worker.types import Layout, Params
from worker.zo import noise
from worker.zo.estimators import Standardised, clipped
from worker.zo.linalg import Cut, cut, product, tree_sum
from worker.zo.method import Measured, Probe, finite, left_out
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Buffers
from worker.zo.schedules import Schedule

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class State:
    """What it remembers: see `worker.zo.method.State`. Of each step that moved, in order, Frobenius norms over all
    modules: `truncation` is the cut's relative error of the sum, as LOZO's, and `missed` the cut's error over the
    step's own move, the share of it that the adapter did not take (above 1 where what was there lost too)."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    back: int = 0
    truncation: tuple[float, ...] = ()
    missed: tuple[float, ...] = ()
    buffers: Buffers = ()


@dataclass(frozen=True)
class Members:
    """`weighing` has the radius eps / sqrt r and the gain sqrt(N / r) (`eggroll.weighing`), so that U_i V_i^T stands
    for a member."""

    layout: Layout
    seed: int
    rank: int  # r, less than layout.rank
    weighing: Standardised
    schedule: Schedule
    clip: float | None = None
    weight_decay: float = 0.0
    numbers: int = 1
    replays: bool = True

    @property
    def most(self) -> int:
        return self.weighing.width

    def init(self) -> tuple[Params, State]:
        return np.zeros(self.layout.size, dtype=np.float32), State()

    def halved(self, times: int) -> "Members":
        return replace(self, schedule=self.schedule.halved(times))

    def ask(self, params: Params, state: State, heard: Sequence[Measured]) -> list[Probe]:
        """What was learned and one member, N times."""
        if heard:
            return []
        radii = self.weighing.probes
        return [Probe(self._with(params, self._member(state.step, query), radius)) for query, radius in radii]

    def tell(self, params: Params, state: State, heard: Sequence[Measured]) -> tuple[Params, State]:
        losses = [measured.loss for measured in heard]
        scores = self.weighing.slopes(losses)
        if not all(map(math.isfinite, (*losses, *scores))):
            return params, left_out(state)
        rate, after = self.schedule(state.step), replace(state, step=state.step + 1, nonfinite=0)
        kept = self._decayed(params, rate)
        if not any(scores) or not rate:
            return kept, after
        coefficients = [-rate * score / len(scores) for score in clipped(scores, self.clip)]
        with np.errstate(over="ignore"):  # what is too large for float32 is left out
            moved, lost, missed = self._moved(kept, state.step, coefficients)
        if not finite(moved):
            return params, left_out(state)
        return moved, replace(after, truncation=(*state.truncation, lost), missed=(*state.missed, missed))

    def _member(self, step: int, query: int) -> list[tuple[Params, Params]]:
        """U [outputs, r] and V^T [r, inputs] of every module, each half drawn for all modules at once, in their
        order."""
        modules, r = self.layout.modules, self.rank
        left = noise.normal(Place(self.seed, Stream.LEFT, step, query), sum(m.outputs for m in modules) * r)
        right = noise.normal(Place(self.seed, Stream.MEMBER_RIGHT, step, query), sum(m.inputs for m in modules) * r)
        halves, u, v = [], 0, 0
        for m in modules:
            drawn = left[u : u + m.outputs * r].reshape(m.outputs, r), right[v : v + r * m.inputs].reshape(r, m.inputs)
            halves.append(drawn)
            u, v = u + m.outputs * r, v + r * m.inputs
        return halves

    def _with(self, params: Params, member: list[tuple[Params, Params]], radius: float) -> Params:
        """The adapter with radius U V^T in its last r rows of A and columns of B."""
        worn, own = params.copy(), slice(self.layout.rank - self.rank, None)
        for i, (left, right) in enumerate(member):
            self.layout.tensor(worn, 2 * i)[own] = right
            self.layout.tensor(worn, 2 * i + 1)[:, own] = left * np.float32(radius / self.layout.scaling)
        return worn

    def _decayed(self, params: Params, rate: float) -> Params:
        """B alone shrinks, and with it B A."""
        if not self.weight_decay:
            return params
        decayed = params.copy()
        for _, _, b in self.layout.pairs(decayed):
            b *= np.float32(1 - rate * self.weight_decay)
        return decayed

    def _moved(self, params: Params, step: int, coefficients: list[float]) -> tuple[Params, float, float]:
        """(params, truncation, missed) after the sum of c_i U_i V_i^T is added and cut. Modules of one shape are worked
        on together, their columns in the order kept, member 0, member 1, ..."""
        keep, members = self.layout.rank - self.rank, [self._member(step, i) for i in range(len(coefficients))]
        moved, dropped, whole, own = np.zeros_like(params), 0.0, 0.0, 0.0
        for alike in self._alike():
            b, a = self._columns(params, members, coefficients, alike)
            done = cut(b, a, keep)
            for j, i in enumerate(alike):
                self.layout.tensor(moved, 2 * i)[:keep] = done.right[j].T
                self.layout.tensor(moved, 2 * i + 1)[:, :keep] = done.left[j]
            dropped += math.fsum(done.energies[:, keep:].ravel().tolist())
            whole += math.fsum(done.energies.ravel().tolist())
            own += _energy(done, keep)
        return moved, math.sqrt(dropped / whole) if whole else 0.0, math.sqrt(dropped / own) if own else 0.0

    def _alike(self) -> list[list[int]]:
        """Numbers of the modules of each shape."""
        found: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, module in enumerate(self.layout.modules):
            found[module.outputs, module.inputs].append(i)
        return list(found.values())

    def _columns(
        self, params: Params, members: list[list[tuple[Params, Params]]], coefficients: list[float], alike: list[int]
    ) -> tuple[F64, F64]:
        """B [m, outputs, k] and A^T [m, inputs, k] of these modules, whose product is the sum over the scaling."""
        keep, scaling = self.layout.rank - self.rank, self.layout.scaling
        left, right = [], []
        for i in alike:
            both = zip(coefficients, members, strict=True)
            moves = [c / scaling * halves[i][0].astype(np.float64) for c, halves in both]
            left.append(np.concatenate([self.layout.tensor(params, 2 * i + 1)[:, :keep], *moves], 1))
            kept = self.layout.tensor(params, 2 * i)[:keep].T
            right.append(np.concatenate([kept, *(halves[i][1].T for halves in members)], 1).astype(np.float64))
        return np.stack(left), np.stack(right)


def _energy(done: Cut, keep: int) -> float:
    """|B A|^2 of the columns from `keep` on, before the cut."""
    move = product(done.left_turn[:, :, keep:], np.swapaxes(done.right_turn[:, :, keep:], 1, 2))
    return math.fsum(tree_sum(tree_sum(move * move, 2), 1).tolist())
