"""One scalar second moment: a rate that adapts by the size of slopes. Knows a descent, no noise and no loss.

MEAZO (Dbouk et al., arXiv 2605.03869): theta <- theta - lr g / (sqrt(v_hat) + floor), v an exponential average of
squared slopes, one number for all entries. Directions of unit variance make Adam's second moments alike everywhere:
each is about sum_i c_i^2 / q^2, the mean square of the entries of g = mean_i c_i z_i. That is what is averaged here, so
a rate keeps its meaning when queries change; the paper's (mean_i c_i)^2 is the same for one query, and for more has
this as its mean where signs are even. Bias is corrected as Adam's is, by 1 - beta^t from t = 1 on.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from worker.types import Params
from worker.zo.descent import Descent
from worker.zo.methods import mezo
from worker.zo.optimizers import power

FLOOR = 1e-8


@dataclass(frozen=True)
class Scaled(Descent[mezo.State]):
    """A descent whose move is divided by the root of v. `state.buffers` is (v,), float32 [1]."""

    beta: float = 0.999

    def init(self) -> tuple[Params, mezo.State]:
        params, state = super().init()
        return params, replace(state, buffers=(np.zeros(1, dtype=np.float32),))

    def _moved(self, params: Params, state: mezo.State, slopes: tuple[float, ...]) -> tuple[Params, mezo.State]:
        square = 0.0
        for slope in slopes:
            square += slope * slope
        square /= len(slopes) * len(slopes)
        v = state.buffers[0] * np.float32(self.beta) + np.float32(square) * np.float32(1 - self.beta)
        told = state.step - state.skipped - state.back
        size = math.sqrt(float(v[0]) / (1 - power(self.beta, told + 1))) + FLOOR
        moved, after = super()._moved(params, state, tuple(slope / size for slope in slopes))
        return moved, replace(after, buffers=(v,))
