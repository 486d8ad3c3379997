"""Landscapes that can be written down. Knows no scorer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.types import Layout, Module, Params

LAYOUT = Layout(rank=3, alpha=6.0, modules=(Module("layers.0.q", 8, 5), Module("layers.1.q", 6, 4)))
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Bowls:
    """Row r has the loss sum_b h_b |theta_b - t_b - noise_r|^2 / 2: a bowl of curvature h_b a tensor, and rows whose
    centres lie around t_b with deviation `spread`."""

    layout: Layout
    curvature: tuple[float, ...]
    targets: F64
    rows: int = 40
    spread: float = 0.1

    def centres(self) -> F64:
        return self.targets + self.spread * np.random.default_rng(8).normal(size=(self.rows, self.layout.size))

    @property
    def stiffness(self) -> F64:
        return np.repeat(self.curvature, np.diff(self.layout.offsets))

    def loss(self, params: Params, rows: Sequence[int]) -> float:
        off = params.astype(np.float64) - self.centres()[list(rows)]
        return float((self.stiffness * off**2).sum(1).mean() / 2)

    def gradient(self, params: Params, rows: Sequence[int]) -> Params:
        off = params.astype(np.float64) - self.centres()[list(rows)]
        return (self.stiffness * off).mean(0).astype(np.float32)
