"""SensZOQ: a static mask of the entries with the most Fisher information. Knows the noise, no loss and no profile.

arXiv 2406.02913, from its abstract: theta +- eps m z, theta <- theta - lr c m z, with m = 1 at the top share of the
entries by the Fisher information that was measured once. Here of an adapter's entries, where the paper's are W's, and
nothing is quantised by it. B's Fisher information depends on A, so A starts as it did where the mask was measured.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.types import Params
from worker.zo.methods.mezo import AdapterSpace, State


@dataclass(frozen=True)
class BegunSpace(AdapterSpace):
    """All P parameters, A as it starts from the seed `begun`; the noise is of the job's own."""

    begun: int

    def start(self) -> tuple[Params, State]:
        return AdapterSpace(self.layout, self.begun).start()


@dataclass(frozen=True)
class Masked:
    """Entries of a direction where `bits` are 1, packed eight to a byte [P / 8, rounded up]; 0 elsewhere."""

    bits: NDArray[np.uint8]

    def shaped(self, z: Params, params: Params, step: int) -> Params:  # noqa: ARG002
        z *= np.unpackbits(self.bits, count=len(z))
        return z
