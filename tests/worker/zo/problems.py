"""Small problems with known answers, written on the effective update of an adapter. Knows no method."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.types import Layout, Module, Params
from worker.zo.method import Method, State, measured

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

    def gradient(self, params: Params) -> F64:
        """Its derivative by every parameter, float64 [P]."""
        rng = np.random.default_rng(5)
        parts = []
        for module, a, b in self.layout.pairs(params):
            target = np.outer(rng.normal(size=module.outputs), rng.normal(size=module.inputs))
            a, b = a.astype(np.float64), b.astype(np.float64)
            off = self.layout.scaling * (self.layout.scaling * b @ a - target / np.linalg.norm(target))
            parts += [(b.T @ off).ravel(), (off @ a.T).ravel()]
        return np.concatenate(parts)


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


def heard_of(method: Method[Any], params: Params, state: State, loss: Callable[[Params], float]) -> list[float]:
    """What a step hears where this is the loss, all its phases in order: a journal row."""
    row: list[float] = []
    while probes := method.ask(params, state, measured(row, method.numbers)):
        for probe in probes:
            row.append(loss(probe.params))
            if probe.tangent is not None:
                row.append(slope(loss, probe.params, probe.tangent))
    return row


def slope(loss: Callable[[Params], float], params: Params, tangent: Params) -> float:
    """The derivative of a smooth loss along a tangent, by differences in float64."""
    step = 1e-6 * tangent.astype(np.float64)
    return (loss(params + step) - loss(params - step)) / 2e-6  # type: ignore[arg-type]


def run(method: Method[Any], loss: Callable[[Params], float], steps: int) -> tuple[Params, Any, list[list[float]]]:
    """Params, state and journal after `steps` steps."""
    params, state = method.init()
    journal = []
    for _ in range(steps):
        journal.append(heard_of(method, params, state, loss))
        params, state = method.tell(params, state, measured(journal[-1], method.numbers))
    return params, state, journal


def replay(method: Method[Any], journal: list[list[float]]) -> tuple[Params, Any]:
    params, state = method.init()
    for row in journal:
        params, state = method.tell(params, state, measured(row, method.numbers))
    return params, state


def arrays(state: State) -> list[Params]:
    """Every vector that a state holds, in the order of its fields."""
    kept = [getattr(state, field.name) for field in fields(state)]
    return [x for value in kept for x in (value if isinstance(value, tuple) else (value,)) if isinstance(x, np.ndarray)]
