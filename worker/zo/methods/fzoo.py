"""FZOO's directions: +1 or -1 in every entry of A and B. Knows the noise, no loss.

Arxiv 2506.09034: probes theta and theta + eps u_i, theta <- theta - lr sum_i (L_i - L_0) u_i / (N std L). The weights
are `worker.zo.estimators.Standardised`'s.
"""

from dataclasses import dataclass

from worker.types import Params
from worker.zo import noise
from worker.zo.methods.mezo import AdapterSpace, State
from worker.zo.noise import Place, Stream


@dataclass(frozen=True)
class SignSpace(AdapterSpace):
    """MeZO's adapter, probed along signs."""

    def direction(self, params: Params, state: State, query: int) -> Params:  # noqa: ARG002
        """u ~ signs of (seed, step, query); tensor i has those from `layout.offsets[i]` on."""
        return noise.signs(Place(self.seed, Stream.SIGNS, state.step, query), self.layout.size)
