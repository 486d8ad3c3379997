"""Networks that learn how far each tensor should move: meta-training of ZO Fine-tuner's. Knows gradients, no engine.

arXiv 2510.00419, by its formulas as they were cited; how it unrolls its runs was not read. Here one step is looked
ahead: a step of the method along z sigma_b leads to a loss on rows that it has not seen, whose derivative by sigma_b is

    dL' / dsigma_b = -lr ((g_b z_b) sum_k sigma_k (g'_k z_k) + c (g'_b z_b)),  c = sum_k sigma_k (g_k z_k),

g the gradient at the step's start and g' at its end: one backward pass a step, for a step's g' is on the rows of the
next one's g. What a network read counts as given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worker.profiling.fisher import by_tensor
from worker.profiling.landscape import Landscape
from worker.runs.profiles import INPUTS
from worker.types import Layout, Params
from worker.zo import noise
from worker.zo.learned import LARGEST_INPUT
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.methods.zo_finetuner import moments
from worker.zo.noise import Place, Stream


@dataclass(frozen=True)
class Plan:
    """Steps of meta-training; the adapter starts anew every `restart` of them, from another seed. `rate` and `eps` are
    those of the method that will read the networks, `meta_rate` is Adam's for their weights, `hidden` their width."""

    steps: int = 300
    restart: int = 50
    batch: int = 8
    rate: float = 1e-3
    eps: float = 1e-2
    meta_rate: float = 1e-2
    hidden: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """The networks' tensors by the names of a profile, and the losses that the steps began at."""

    tensors: dict[str, NDArray[np.float32]]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class _Stand:
    """Where a run stands: params, their gradient on the rows to come, and what the networks read beside moments."""

    params: Params
    gradient: NDArray[np.float64]
    sigma: NDArray[np.float64]
    losses: tuple[float, float] | None = None


def trained(landscape: Landscape, layout: Layout, plan: Plan) -> Trained:
    """Networks for the tensors of this layout. The same for the same plan and rows, on one machine. Raises ValueError
    where a gradient is not finite."""
    networks = [torch.from_numpy(x.copy()).double().requires_grad_(True) for x in started(layout, plan)]
    optimizer = torch.optim.Adam(networks, lr=plan.meta_rate)
    sizes = np.diff(layout.offsets).astype(np.float64)
    losses: list[float] = []
    stand = None
    for step in range(plan.steps):
        if stand is None or step % plan.restart == 0:
            stand = _begun(landscape, layout, plan, step)
        sigma = _sized(networks, layout, stand, torch.from_numpy(sizes))
        heard = stand.losses is not None
        stand, wanted = _looked_ahead(landscape, layout, plan, step, stand, sigma.detach().numpy())
        if heard:
            optimizer.zero_grad()
            (torch.from_numpy(wanted) @ sigma).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        losses.append(sum(stand.losses or ()) / 2)
    named = zip(("w1", "b1", "w2", "b2"), networks, strict=True)
    return Trained({name: x.detach().float().numpy() for name, x in named}, tuple(losses))


def started(layout: Layout, plan: Plan) -> Sequence[NDArray[np.float32]]:
    """Networks that say 1, nearly, whatever they read: w1, b1, w2 and b2."""
    count = len(layout.shapes)

    def drawn(tensor: int, scale: float, *shape: int) -> NDArray[np.float32]:
        place = Place(plan.seed, Stream.META_WEIGHTS, 0, tensor=tensor)
        return noise.normal(place, int(np.prod(shape))).reshape(shape) * np.float32(scale)

    return (
        drawn(0, 0.3, count, plan.hidden, INPUTS),
        drawn(1, 0.3, count, plan.hidden),
        drawn(2, 0.01, count, plan.hidden),
        np.ones(count, np.float32),
    )


def _begun(landscape: Landscape, layout: Layout, plan: Plan, step: int) -> _Stand:
    params, _ = AdapterSpace(layout, plan.seed + step).start()
    return _Stand(params, _gradient(landscape, params, plan, step), np.ones(len(layout.shapes)))


def _sized(networks: list[torch.Tensor], layout: Layout, stand: _Stand, sizes: torch.Tensor) -> torch.Tensor:
    """The sigmas of a step, normalised, float64 [T]; 1 until losses were heard, as the method has it."""
    if stand.losses is None:
        return torch.ones_like(sizes)
    w1, b1, w2, b2 = networks
    told = np.broadcast_to(np.array(stand.losses), (len(sizes), 2))
    read = np.concatenate((moments(layout, stand.params), told, stand.sigma[:, None]), 1)
    x = torch.from_numpy(np.clip(read, -LARGEST_INPUT, LARGEST_INPUT))
    found = ((w2 * torch.tanh((w1 * x[:, None, :]).sum(2) + b1)).sum(1) + b2).abs()
    return found * torch.sqrt(sizes.sum() / (sizes * found * found).sum())


def _looked_ahead(
    landscape: Landscape, layout: Layout, plan: Plan, step: int, stand: _Stand, sigma: NDArray[np.float64]
) -> tuple[_Stand, NDArray[np.float64]]:
    """Where the step leads, and the derivative of the loss there by the sigmas [T]."""
    z = noise.normal(Place(plan.seed, Stream.META_DIRECTION, step), layout.size)
    factors = np.repeat(sigma, np.diff(layout.offsets)).astype(np.float32)
    move = z * factors
    rows = _rows(landscape, plan, step)
    up = landscape.loss(stand.params + move * np.float32(plan.eps), rows)
    down = landscape.loss(stand.params - move * np.float32(plan.eps), rows)
    slope = (up - down) / (2 * plan.eps)
    params = stand.params - move * np.float32(plan.rate * slope)
    gradient = _gradient(landscape, params, plan, step + 1)
    here, there = by_tensor(layout, stand.gradient * z), by_tensor(layout, gradient * z)
    wanted = -plan.rate * (here * float(sigma @ there) + slope * there)
    return _Stand(params, gradient, sigma, (up, down)), wanted


def _rows(landscape: Landscape, plan: Plan, step: int) -> tuple[int, ...]:
    words = noise.words(Place(plan.seed, Stream.META_ROWS, step), plan.batch)
    return tuple(int(word % landscape.rows) for word in words)


def _gradient(landscape: Landscape, params: Params, plan: Plan, step: int) -> NDArray[np.float64]:
    found = landscape.gradient(params, _rows(landscape, plan, step)).astype(np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"the gradient of step {step} is not finite: a lower rate may help")
    return found
