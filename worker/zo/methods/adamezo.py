"""AdaMeZO: Adam's moments rebuilt from the slopes of the last steps. Knows a descent, no noise and no loss.

Cai et al., arXiv 2605.00650: moments are not stored; with K = `window`, n <= K the steps told up to K,
    m = sum_k beta1^k g_(t-k) (1 - beta1) / (1 - beta1^n),  v = sum_k beta2^k g_(t-k)^2 (1 - beta2) / (1 - beta2^n),
theta <- theta - lr m / (sqrt(v) + floor), g_s = mean_i c_i z_i of step s drawn again. Weights add up to 1 as Adam's
do with its bias correction, so that this is Adam for the first K steps, and Adam on a truncated window after.
"""

from dataclasses import dataclass, replace

import numpy as np

from worker.types import Params
from worker.zo.descent import Descent
from worker.zo.methods import mezo
from worker.zo.optimizers import power

FLOOR = 1e-8


@dataclass(frozen=True)
class Recomputed(Descent[mezo.State]):
    """A descent by SGD against m / (sqrt(v) + floor) in place of g. `state.buffers` is empty, then (rows,), float32
    [n, 1 + queries]: number and slopes of each of the last n steps that moved it, the latest last. Numbers of steps
    are below 2^24 and exact."""

    beta1: float = 0.9
    beta2: float = 0.999
    window: int = 10

    def _moved(self, params: Params, state: mezo.State, slopes: tuple[float, ...]) -> tuple[Params, mezo.State]:
        rows = np.array([[state.step, *slopes]], dtype=np.float32)
        if state.buffers:
            rows = np.concatenate((state.buffers[0], rows))[-self.window :]
        return super()._moved(params, replace(state, buffers=(rows,)), slopes)

    def _gradient(self, params: Params, state: mezo.State, slopes: tuple[float, ...]) -> Params:  # noqa: ARG002
        """m / (sqrt(v) + floor), float32 [P], added up from the oldest step on."""
        (rows,) = state.buffers
        n = len(rows)
        m, v = np.zeros_like(params), np.zeros_like(params)
        for age, row in zip(range(n - 1, -1, -1), rows, strict=True):
            at = replace(state, step=int(row[0]))
            g = super()._gradient(params, at, tuple(float(c) for c in row[1:]))
            m += g * np.float32(_weight(self.beta1, age, n))
            g *= g
            v += g * np.float32(_weight(self.beta2, age, n))
        return np.divide(m, np.sqrt(v) + np.float32(FLOOR), dtype=np.float32)


def _weight(beta: float, age: int, n: int) -> float:
    """Of a gradient that is `age` steps old, among n: n of them add up to 1."""
    return power(beta, age) * (1 - beta) / (1 - power(beta, n))
