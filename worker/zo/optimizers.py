"""Gradient estimate to direction: optimizers. Knows vectors and step numbers, no noise and no probe.

Everything is elementwise float32 or scalar float64 with +, -, *, / and sqrt, which IEEE 754 rounds exactly: no `pow`,
`cos` or reduction, whose last bit belongs to the machine.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worker.types import Params

Buffers = tuple[Params, ...]


class Optimizer(Protocol):
    """apply(gradient, buffers, step) -> (direction, buffers): the parameters move by -learning rate * direction."""

    @property
    def buffers(self) -> int:
        """Vectors kept, each as long as the parameters and 0 at first."""
        ...

    def apply(self, gradient: Params, buffers: Buffers, step: int) -> tuple[Params, Buffers]: ...


@dataclass(frozen=True)
class Sgd:
    """direction = gradient."""

    buffers: int = 0

    def apply(self, gradient: Params, buffers: Buffers, step: int) -> tuple[Params, Buffers]:  # noqa: ARG002
        return gradient, buffers


@dataclass(frozen=True)
class Momentum:
    """m <- beta m + (1 - dampening) g; direction = m. ZO-SGD-MMT (arXiv 2402.11592) has dampening 0, LOZO-M
    (arXiv 2410.07698) dampening = beta."""

    beta: float
    dampening: float = 0.0
    buffers: int = 1

    def apply(self, gradient: Params, buffers: Buffers, step: int) -> tuple[Params, Buffers]:  # noqa: ARG002
        m = buffers[0] * np.float32(self.beta) + gradient * np.float32(1 - self.dampening)
        return m, (m,)


@dataclass(frozen=True)
class Adam:
    """Adam (arXiv 1412.6980, algorithm 1) with bias correction; `step` counts from 0 and steps that were left out
    are not counted."""

    beta1: float
    beta2: float
    floor: float = 1e-8
    buffers: int = 2

    def apply(self, gradient: Params, buffers: Buffers, step: int) -> tuple[Params, Buffers]:
        first, second = np.float32(self.beta1), np.float32(self.beta2)
        m = buffers[0] * first + gradient * np.float32(1 - self.beta1)
        v = buffers[1] * second + gradient * gradient * np.float32(1 - self.beta2)
        m_hat = m / np.float32(1 - power(self.beta1, step + 1))
        v_hat = v / np.float32(1 - power(self.beta2, step + 1))
        return np.divide(m_hat, np.sqrt(v_hat) + np.float32(self.floor), dtype=np.float32), (m, v)


@dataclass(frozen=True)
class Amsgrad:
    """Adam with the largest second moment up to now (arXiv 1904.09237, algorithm 2): v_max <- max(v_max, v). As torch
    has it, the bias correction is outside of the maximum, sqrt(v_max / (1 - beta2^t)), where the paper has none."""

    beta1: float
    beta2: float
    floor: float = 1e-8
    buffers: int = 3

    def apply(self, gradient: Params, buffers: Buffers, step: int) -> tuple[Params, Buffers]:
        m = buffers[0] * np.float32(self.beta1) + gradient * np.float32(1 - self.beta1)
        v = buffers[1] * np.float32(self.beta2) + gradient * gradient * np.float32(1 - self.beta2)
        v_max = np.maximum(buffers[2], v)
        m_hat = m / np.float32(1 - power(self.beta1, step + 1))
        v_hat = v_max / np.float32(1 - power(self.beta2, step + 1))
        return np.divide(m_hat, np.sqrt(v_hat) + np.float32(self.floor), dtype=np.float32), (m, v, v_max)


def power(base: float, exponent: int) -> float:
    """base ** exponent for exponent >= 0 by squaring: the same products in the same order everywhere."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
