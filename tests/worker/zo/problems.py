"""Small problems with known answers, written on the effective update of an adapter. Knows no method."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.types import Layout, Losses, Module, Params
from worker.zo.method import Method, State

F64 = NDArray[np.float64]
LAYOUT = Layout(rank=4, alpha=6.0, modules=(Module("a", 6, 5), Module("b", 3, 7)))
WIDE = Layout(rank=8, alpha=16.0, modules=(Module("x", 12, 10),))  # rank 8 of 10
WHOLE = Layout(rank=8, alpha=16.0, modules=(Module("x", 6, 10),))  # rank 8 reaches every update


def updates(layout: Layout, params: Params) -> list[F64]:
    """dW = scaling B A of each module, float64 [outputs, inputs]."""
    return [layout.scaling * (b.astype(np.float64) @ a.astype(np.float64)) for _, a, b in layout.pairs(params)]


@dataclass(frozen=True)
class Quadratic:
    """f = |dW - T|^2 / 2 over all modules, T of rank 1 and norm 1 in each: f(0) = modules / 2, least value 0."""

    layout: Layout

    def __call__(self, params: Params) -> float:
        rng = np.random.default_rng(5)
        total = 0.0
        for module, w in zip(self.layout.modules, updates(self.layout, params), strict=True):
            target = np.outer(rng.normal(size=module.outputs), rng.normal(size=module.inputs))
            total += float(((w - target / np.linalg.norm(target)) ** 2).sum()) / 2
        return total


@dataclass(frozen=True)
class Logistic:
    """Binary classification of 200 points by a linear layer of 2 outputs that the adapter of one module updates:
    labels are those of a separating plane, so the least loss is 0; f(0) = log 2. Mean cross-entropy, in nats."""

    layout: Layout

    def data(self) -> tuple[F64, NDArray[np.int64]]:
        rng = np.random.default_rng(11)
        x = 3 * rng.normal(size=(200, self.layout.modules[0].inputs))
        return x, (x @ rng.normal(size=x.shape[1]) > 0).astype(np.int64)

    def __call__(self, params: Params) -> float:
        x, y = self.data()
        logits = (x @ updates(self.layout, params)[0].T)[:, :2]
        return float((np.logaddexp(logits[:, 0], logits[:, 1]) - logits[np.arange(len(y)), y]).mean())

    def accuracy(self, params: Params) -> float:
        x, y = self.data()
        return float(((x @ updates(self.layout, params)[0].T)[:, :2].argmax(1) == y).mean())


def run(method: Method[State], loss: Callable[[Params], float], steps: int) -> tuple[Params, State, list[Losses]]:
    """Params, state and journal after `steps` steps."""
    params, state = method.init()
    journal = []
    for _ in range(steps):
        journal.append(np.array([loss(probe) for probe in method.ask(params, state)]))
        params, state = method.tell(params, state, journal[-1])
    return params, state, journal


def replay(method: Method[State], journal: list[Losses]) -> tuple[Params, State]:
    params, state = method.init()
    for losses in journal:
        params, state = method.tell(params, state, losses)
    return params, state
